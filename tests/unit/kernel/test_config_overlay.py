"""What is set at run time, and secrets named like settings, above the files."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import KernelConfig
from magmobo.kernel.config.loader import build_config
from magmobo.kernel.config.overlay import Overlaid, overlaid, put, refer_to_vault
from magmobo.kernel.config.source import Base, Runtime, RuntimeSetting


class Inner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    token: Secret | None = None
    size: int = 1


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    secret: Secret = Secret("none")


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    names: tuple[str, ...] = ()
    apps: tuple[App, ...] = ()
    level: str = "info"
    inner: Inner = Inner()
    labels: dict[str, str] = {}


SECTIONS = {"part": Section}
BASE = Base(
    {"part": {"level": "debug", "inner": {"size": 2}}}, {"part.level": "mag.toml line 2"}, {"part.level": "file"}, "d"
)


def setting(value: str) -> RuntimeSetting:
    return RuntimeSetting(value, "uid:7", 1.0)


def section_of(runtime: Runtime, base: Base = BASE) -> Section:
    section: Section = build_config(SECTIONS, *overlaid(base, runtime, SECTIONS)).section("part")
    return section


def test_patches_win_over_overrides_and_both_over_files() -> None:
    before = copy.deepcopy(BASE.values)
    overrides = {"part.level": setting("warning"), "part.inner.size": setting("3")}
    merged = overlaid(BASE, Runtime(overrides, {"part.level": setting("error")}), SECTIONS)
    config = build_config(SECTIONS, *merged)
    assert (config.section("part").level, config.section("part").inner.size) == ("error", 3)
    assert (config.origin("part.level"), config.layer("part.level")) == ("patch by uid:7", "patch")
    assert config.layer("part.inner.size") == "override"
    assert BASE.values == before
    assert section_of(Runtime()).level == "debug"


def test_text_is_read_as_the_type_of_the_key() -> None:
    found = section_of(Runtime({"part.names": setting("a, b"), "part.labels": setting('{"x": "y"}')}))
    assert (found.names, found.labels) == (("a", "b"), {"x": "y"})
    assert section_of(Runtime({"part.names": setting('["a,b"]')})).names == ("a,b",)
    assert section_of(Runtime({"part.labels.x": setting("z")})).labels == {"x": "z"}


@pytest.mark.parametrize(
    "key", ["part.level.deeper", "part.names[0]", "part.apps[0].secret", "part.levels", "parts.level"]
)
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="part"):
        section_of(Runtime({key: setting("x")}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("part.inner.token", "hunter2"), ("part.inner.token", "plain:hunter2"), ("part.inner.token", "vault: hunter2"),
        ("part.inner.token", "postgres://a:hunter2@h/d"), ("part.inner", '{"token": "hunter2"}'),
        ("part.inner.token", "postgres://a:hunter2@${vault:x}/d"), ("part.apps", '[{"secret": "hunter2"}]'),
        ("part.inner.token", "postgres://a:${vault:x}hunter2@h/d"), ("part.inner.token", "hunter2${vault:x}"),
        ("part.inner.token", "postgres://a:${vault:x}@h/d?password=hunter2"),
    ],
)  # fmt: skip
def test_a_secret_is_not_set_by_its_value(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match="mag vault:set") as raised:
        section_of(Runtime({key: setting(value)}))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("key", ["kernel.data_dir", "kernel.environment", "kernel.components"])
def test_what_a_node_reads_before_it_knows_what_was_set_is_not_set_at_run_time(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is read before .* mag.toml"):
        overlaid(BASE, Runtime({key: setting("x")}), {"kernel": KernelConfig})


@pytest.mark.parametrize("value", ["vault:x", "vault:x@3", "env:X", "cred:x", "postgres://a:${vault:x}@h:1/d"])
def test_a_secret_is_set_by_reference(value: str) -> None:
    token = section_of(Runtime({"part.inner.token": setting(value)})).inner.token
    assert token is not None
    assert token.reveal() == value  # nobody follows it here


def test_a_secret_named_like_a_setting_is_that_setting_unless_somebody_above_said_otherwise() -> None:
    def referred(layer: str) -> object:
        layers = {"part.inner.token": layer} if layer else {}
        merged = overlaid(Base({"part": {"inner": {"token": "said"}}}, {}, layers, "d"), Runtime(), SECTIONS)
        refer_to_vault(merged, ["part.inner.token", "part.level", "part", "other.x", "db"], SECTIONS)
        assert "level" not in merged.values["part"]
        return merged.values["part"]["inner"]["token"]

    assert [referred(layer) for layer in ("", "file", "secrets", "generated")] == ["vault:part.inner.token"] * 4
    assert [referred(layer) for layer in ("environment", "command line", "override", "patch")] == ["said"] * 4


def test_a_table_that_was_set_as_a_whole_is_replaced_with_its_origins() -> None:
    merged = Overlaid({"part": {"labels": {"a": "1"}}}, {"part.labels.a": "file"}, {"part.labels.a": "file"})
    assert put(merged, "part.labels", "text", "patch", "patch")
    assert merged.origins == {"part.labels": "patch"}
    assert not put(merged, "part.labels.a", "x", "patch", "patch")
    assert merged.values == {"part": {"labels": "text"}}


@given(st.lists(st.sampled_from(["part.level", "part.inner.size", "part.labels.a", "part.labels.b"]), max_size=6))
def test_what_is_set_and_taken_back_leaves_nothing(keys: list[str]) -> None:
    changed = overlaid(BASE, Runtime({key: setting("1") for key in keys}), SECTIONS)
    assert {key for key, layer in changed.layers.items() if layer == "override"} == set(keys)
    assert overlaid(BASE, Runtime(), SECTIONS) == Overlaid(dict(BASE.values), dict(BASE.origins), dict(BASE.layers))
