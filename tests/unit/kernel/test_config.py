"""Layers merge by simple laws, every problem is named at once, and no secret is ever shown."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.layers import Layer, environment_layer, toml_layer
from magmobo.kernel.config.loader import load_config, merge
from magmobo.kernel.errors import ConfigFileError


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern="^[0-9]+$")]
    secret: Secret


class Jwt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    secret: Secret | None = None
    leeway_s: Annotated[int, Meta(ge=0)] = 0


class Sample(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: Annotated[int, Meta(ge=0, le=65535)] = 8787
    ratio: float = 0.5
    on: bool = False
    mode: Literal["a", "b"] = "a"
    dsn: Secret | None = None
    folder: Path | None = None
    tables: tuple[str, ...] = ()
    apps: list[App] = []
    jwt: Jwt = Jwt()
    labels: dict[str, int] = {}
    pair: Annotated[list[int], Meta(max_length=2)] = []

    def __post_init__(self) -> None:
        if self.on and self.port == 0:
            raise ValueError("on needs a port")


def load(*values: dict[str, Any], environ: dict[str, str] | None = None) -> Any:
    layers = [Layer(f"layer {i}", f"file{i}.toml", {"sample": value}) for i, value in enumerate(values)]
    return load_config({"sample": Sample}, [*layers, environment_layer(environ or {})])


def problems(*values: dict[str, Any], environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*values, environ=environ)
    return caught.value.problems


# ---------------------------------------------------------------- values


def test_defaults_apply_and_say_so() -> None:
    config = load()
    assert config.section("sample") == Sample()
    assert config.origin("sample.port") == "default"


def test_later_layers_win_and_origins_say_who_did() -> None:
    config = load({"port": 1, "jwt": {"leeway_s": 3}}, {"port": 2, "jwt": {"secret": "s"}, "apps": []})
    assert config.section("sample").port == 2
    assert config.section("sample").jwt == Jwt(secret=Secret("s"), leeway_s=3)
    assert [config.origin(f"sample.{key}") for key in ("port", "jwt.leeway_s", "jwt.secret", "ratio")] == [
        "file1.toml",
        "file0.toml",
        "file1.toml",
        "default",
    ]


def test_the_environment_is_read_as_the_type_of_the_setting() -> None:
    environ = {
        "MAG_SAMPLE__PORT": "99",
        "MAG_SAMPLE__RATIO": "1",
        "MAG_SAMPLE__ON": "true",
        "MAG_SAMPLE__DSN": "12345",
        "MAG_SAMPLE__FOLDER": "/data",
        "MAG_SAMPLE__TABLES": "a, b",
        "MAG_SAMPLE__APPS": '[{"id": "7", "secret": "x"}]',
        "MAG_SAMPLE__JWT__LEEWAY_S": "5",
        "MAG_SAMPLE__PAIR": "1,2",
        "MAG_DATA_DIR": "not a setting",
        "PATH": "/bin",
    }
    config = load({"port": 1}, environ=environ)
    assert config.section("sample") == Sample(
        port=99,
        ratio=1.0,
        on=True,
        dsn=Secret("12345"),
        folder=Path("/data"),
        tables=("a", "b"),
        apps=[App(id="7", secret=Secret("x"))],
        jwt=Jwt(leeway_s=5),
        pair=[1, 2],
    )
    assert config.origin("sample.jwt.leeway_s") == "environment MAG_SAMPLE__JWT__LEEWAY_S"


def test_a_variable_may_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgres://u:p@h/db\n")
    config = load(environ={"MAG_SAMPLE__DSN_FILE": str(tmp_path / "dsn")})
    assert config.section("sample").dsn == Secret("postgres://u:p@h/db")
    with pytest.raises(ConfigFileError, match="MAG_SAMPLE__DSN_FILE"):
        load(environ={"MAG_SAMPLE__DSN_FILE": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigFileError, match="also set by"):
        load(environ={"MAG_SAMPLE__DSN_FILE": str(tmp_path / "dsn"), "MAG_SAMPLE__DSN": "x"})


def test_what_is_wrong_with_the_environment_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"hunter2\xff")
    (tmp_path / "large").write_bytes(b"hunter2" * 150_000)
    environ = {
        "MAG_SAMPLE__DSN": os.fsdecode(b"hunter2\xff"),
        "MAG_SAMPLE__MODE_FILE": str(tmp_path / "binary"),
        "MAG_SAMPLE__FOLDER_FILE": str(tmp_path / "large"),
        "MAG_SAMPLE__JWT": "{}",
        "MAG_SAMPLE__JWT__SECRET": "hunter2",
        "MAG_SAMPLE__TABLES": "\u00fc",
    }
    with pytest.raises(ConfigFileError) as caught:
        environment_layer(environ)
    assert caught.value.problems == [
        "MAG_SAMPLE__DSN: is not UTF-8 text",
        "MAG_SAMPLE__FOLDER_FILE: the file it names cannot be read (it is larger than 1048576 bytes)",
        "MAG_SAMPLE__JWT__SECRET: sample.jwt.secret is also set by another variable",
        "MAG_SAMPLE__MODE_FILE: the file it names cannot be read (it is not UTF-8 text)",
    ]


def test_a_table_may_be_said_as_json_with_any_names() -> None:
    config = load(environ={"MAG_SAMPLE__LABELS": '{"a.b": 1, "\\ud800": 2}', "MAG_SAMPLE__JWT": '{"leeway_s": 4}'})
    assert config.section("sample").jwt == Jwt(leeway_s=4)
    assert config.origin("sample.jwt.leeway_s") == "environment MAG_SAMPLE__JWT"
    assert config.layer('sample.labels."a.b"') == "environment"
    found = problems(environ={"MAG_SAMPLE__LABELS": '{"\\ud800": "x", "\\u202e": "\\ud801"}'})
    assert found == [
        r'sample.labels."\u202e" = "\ud801": expected a whole number (environment MAG_SAMPLE__LABELS)',
        r'sample.labels."\ud800" = "x": expected a whole number (environment MAG_SAMPLE__LABELS)',
    ]
    assert problems(environ={"MAG_SAMPLE__JWT": "hunter2"}) == [
        "sample.jwt = ***: expected a table (environment MAG_SAMPLE__JWT)"
    ]


def test_a_mistake_names_the_line_and_a_table_the_first_line_of_each_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(
        "[sample]\nport = 0\nmode = 'b'\n\n[[sample.apps]]\nid = '1'\nsecret = 's'\n\n[[sample.apps]]\nid = 'x'\n"
    )
    two.write_text("\n\n[sample]\non = true\nlabels = { a = 1, b = 'x' }\ntables = [\n  'a',\n  1,\n]")
    layers = [toml_layer(one, "one"), toml_layer(two, "two")]
    with pytest.raises(ConfigError) as caught:
        load_config({"sample": Sample}, layers)
    assert caught.value.problems == sorted(
        [
            f'sample.apps[1].id = "x": expected text, of the form ^[0-9]+$ ({one} line 10)',
            f"sample.apps[1].secret is not set: expected text (a secret) ({one} line 9)",
            f'sample.labels.b = "x": expected a whole number ({two} line 5)',
            f"sample.tables[1] = 1: expected text ({two} line 8)",
        ]
    )
    one.write_text("[sample]\nport = 0\nmode = 'b'\n")
    two.write_text("[sample]\nratio = 1.0\non = true\nunknown.x = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config({"sample": Sample}, [toml_layer(one, "one"), environment_layer({"MAG_SAMPLE__ON": "true"})])
    assert caught.value.problems == [f"sample: on needs a port ({one} line 2, environment MAG_SAMPLE__ON)"]
    with pytest.raises(ConfigError, match=f"sample.unknown is unknown; .* \\({re.escape(str(two))} line 4\\)"):
        load_config({"sample": Sample}, [toml_layer(two, "two")])


def test_a_list_that_is_replaced_forgets_the_lines_of_the_old_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text("[[sample.apps]]\nid = '1'\nsecret = 's'\n[[sample.apps]]\nid = '2'\nsecret = 's'\n")
    two.write_text("\n\n\n\nsample.apps = [{id = '3', secret = 's'}]\n")
    layers = [toml_layer(one, "one"), toml_layer(two, "two")]
    config = load_config({"sample": Sample}, layers)
    assert config.origin("sample.apps[0].id") == config.origin("sample.apps[1].id") == f"{two} line 5"
    assert merge(layers).origins == {"sample.apps": f"{two} line 5"}
    assert merge([*layers, Layer("x", "x", {"sample": {"apps": {"a": 1}}})]).origins == {"sample.apps.a": "x"}


def test_database_url_and_port_stand_in_for_their_settings() -> None:
    layer = environment_layer({"DATABASE_URL": "postgres://h/db", "PORT": "80", "MAG_LISTENER__PORT": "81"})
    assert layer.values == {"magds": {"dsn": "postgres://h/db"}, "listener": {"port": "81"}}
    assert layer.origins["magds.dsn"] == "environment DATABASE_URL"
    assert environment_layer({"DATABASE_URL": "", "PORT": ""}).values == {}


def test_database_url_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgres://h/db\n")
    variables = {"DATABASE_URL_FILE": str(file)}
    layer = environment_layer(variables)
    assert layer.values == {"magds": {"dsn": "postgres://h/db"}}
    assert layer.origins["magds.dsn"] == "environment DATABASE_URL_FILE"
    assert environment_layer({**variables, "MAG_MAGDS__DSN": "x"}).values == {"magds": {"dsn": "x"}}
    assert environment_layer({"DATABASE_URL_FILE": ""}).values == {}
    with pytest.raises(ConfigFileError, match=r"DATABASE_URL_FILE: magds\.dsn is also set by DATABASE_URL"):
        environment_layer({**variables, "DATABASE_URL": "y"})
    file.unlink()
    with pytest.raises(ConfigFileError, match="DATABASE_URL_FILE: the file it names cannot be read"):
        environment_layer(variables)


def test_a_file_does_not_read_text_as_a_number() -> None:
    assert problems({"port": "8080"}) == [
        'sample.port = "8080": expected a whole number, >= 0 and <= 65535 (file0.toml)'
    ]


def test_the_core_sections_have_valid_defaults() -> None:
    config = load_config(CORE_SECTIONS, [])
    assert config.section("kernel").data_dir == Path("mag_data")


def test_the_admin_token_is_kept_as_a_hash_only() -> None:
    digest = "0123456789abcdef" * 4
    config = load_config(CORE_SECTIONS, [Layer("x", "x", {"admin": {"token_sha256": digest}})])
    assert config.section("admin").token_sha256.reveal() == digest
    with pytest.raises(ConfigError, match="admin: token_sha256 is not the sha256") as caught:
        load_config(CORE_SECTIONS, [Layer("x", "x", {"admin": {"token_sha256": "the token itself"}})])
    assert "the token itself" not in str(caught.value)


# ---------------------------------------------------------------- problems


def test_all_problems_are_named_at_once() -> None:
    found = problems(
        {
            "prot": 1,
            "port": 70000,
            "mode": "c",
            "tables": ["a", 4],
            "apps": [{"id": "x", "secret": "hunter2"}, {"secrte": "hunter2", "id": "1"}],
            "jwt": {"leeway_s": -1},
            "labels": {"a": "b"},
            "folder": 3,
        },
        {"ratio": "much"},
        environ={"MAG_SAMPLE__ON": "perhaps"},
    )
    assert found == sorted(
        [
            'sample.prot is unknown; did you mean "port"? (file0.toml)',
            "sample.port = 70000: expected a whole number, >= 0 and <= 65535 (file0.toml)",
            'sample.mode = "c": expected one of "a", "b" (file0.toml)',
            "sample.tables[1] = 4: expected text (file0.toml)",
            'sample.apps[0].id = "x": expected text, of the form ^[0-9]+$ (file0.toml)',
            'sample.apps[1].secrte is unknown; did you mean "secret"? (file0.toml)',
            "sample.apps[1].secret is not set: expected text (a secret) (file0.toml)",
            "sample.jwt.leeway_s = -1: expected a whole number, >= 0 (file0.toml)",
            'sample.labels.a = "b": expected a whole number (file0.toml)',
            "sample.folder = 3: expected a path (file0.toml)",
            'sample.ratio = "much": expected a number (file1.toml)',
            'sample.on = "perhaps": expected true or false (environment MAG_SAMPLE__ON)',
        ]
    )


def test_what_spans_several_values_is_a_problem_too() -> None:
    assert problems({"pair": [1, 2, 3]}) == ["sample.pair: expected `array` of length <= 2 (file0.toml)"]
    assert problems({"on": True, "port": 0}) == ["sample: on needs a port (file0.toml)"]


def test_sections_must_be_known_tables() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"sample": Sample}, [Layer("x", "x.toml", {"sampel": {}, "sample": 5})])
    assert caught.value.problems == [
        "sample: expected a table (x.toml)",
        'unknown section "sampel"; did you mean "sample"?',
    ]


SECRET_TEXT = "hunter2-do-not-show"
leaves = st.sampled_from([SECRET_TEXT, f"postgres://u:{SECRET_TEXT}@h/db", [SECRET_TEXT], {"x": SECRET_TEXT}])


@settings(deadline=None)  # a busy machine is not a failure
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "dsn": leaves | st.integers(),
            "apps": leaves | st.lists(st.dictionaries(st.sampled_from(["id", "secret", "other"]), leaves), max_size=3),
            "jwt": leaves | st.dictionaries(st.sampled_from(["secret", "leeway_s", "nothing"]), st.just([SECRET_TEXT])),
            "dns": leaves,
        },
    )
)
def test_no_error_shows_a_secret(values: dict[str, Any]) -> None:
    try:
        config = load(values)
    except ConfigError as error:
        # `id` is not secret: whoever writes a secret there sees it again.
        shown = [problem for problem in error.problems if ".id = " not in problem]
        assert SECRET_TEXT not in "".join(shown)
    else:
        assert SECRET_TEXT not in repr(config.section("sample").dsn)


def test_a_password_in_the_url_of_an_ordinary_setting_is_hidden() -> None:
    class Hook(Struct, frozen=True):
        target: Annotated[str, Meta(pattern="^https:")] = "https://x"

    with pytest.raises(ConfigError) as caught:
        load_config({"hook": Hook}, [Layer("x", "x", {"hook": {"target": "http://u:hunter2@h"}})])
    assert "http://u:***@h" in str(caught.value)


# ---------------------------------------------------------------- merge laws

keys = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.dictionaries(keys, st.integers() | st.lists(st.integers(), max_size=2), max_size=3),
    lambda inner: st.dictionaries(keys, st.integers() | inner, max_size=3),
    max_leaves=10,
)


def merged(*values: dict[str, Any]) -> dict[str, Any]:
    return merge([Layer(str(i), str(i), value) for i, value in enumerate(values)]).values


def shaped(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Trees in which a key is a table always or never, as in a valid configuration."""
    single = st.integers() | st.lists(st.integers(), max_size=2)
    tables = {"x": shaped(depth - 1), "y": shaped(depth - 1)} if depth else {}
    return st.fixed_dictionaries({}, optional={"a": single, "b": single, **tables})


@settings(deadline=None)  # a busy machine is not a failure
@given(shaped(2), shaped(2), shaped(2))
def test_merging_is_associative(a: Any, b: Any, c: Any) -> None:
    assert merged(merged(a, b), c) == merged(a, merged(b, c)) == merged(a, b, c)


@settings(deadline=None)  # a busy machine is not a failure
@given(trees)
def test_merging_is_idempotent_and_has_an_identity(a: Any) -> None:
    assert merged(a, a) == merged(a) == merged(a, {}) == merged({}, a) == a


@settings(deadline=None)  # a busy machine is not a failure
@given(trees, trees)
def test_merging_changes_no_layer_and_every_leaf_has_the_origin_that_set_it(a: Any, b: Any) -> None:
    before = json.dumps([a, b])
    both = merge([Layer("a", "a", a, kind="one"), Layer("b", "b", b, kind="two")])
    values, origins, kinds = both.values, both.origins, both.layers
    assert json.dumps([a, b]) == before

    def leaves_of(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in tree.items():
            found |= leaves_of(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return found

    assert origins.keys() == kinds.keys() == leaves_of(values).keys()
    in_b = leaves_of(b)
    for path, value in leaves_of(values).items():
        assert (origins[path], kinds[path]) == (("b", "two") if path in in_b else ("a", "one"))
        assert value == (in_b if path in in_b else leaves_of(a))[path]


# ---------------------------------------------------------------- files


def test_a_toml_file_becomes_a_layer(tmp_path: Path) -> None:
    path = tmp_path / "mag.toml"
    path.write_text("[sample]\nport = 5\n")
    layer = toml_layer(path, "project")
    assert (layer.name, layer.origin, layer.values) == ("project", str(path), {"sample": {"port": 5}})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"\x00" * 50, "not valid TOML"),
        (b"[a]\nb = 1\nb = 2", "not valid TOML: Cannot overwrite a value"),
        (b"a = " + b"9" * 5_000, "a number is too long"),
        (b'[sample]\nport = 1\nmode = "a', "line 3"),
        (b"[sample]\nx = '\xff'\n", "line 2: is not UTF-8"),
        (b"a = " + b"[" * 50_000, "not valid TOML"),
        (b"#" * 1_048_577, "larger than"),
    ],
)
def test_a_damaged_file_is_an_error_never_the_defaults(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "mag.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigFileError, match=complaint) as caught:
        toml_layer(path, "project")
    assert str(path) in str(caught.value)


def test_what_is_no_file_is_an_error_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "mag.toml", tmp_path, tmp_path / "pipe.toml"):
        with pytest.raises(ConfigFileError, match="cannot be read"):
            toml_layer(path, "project")
