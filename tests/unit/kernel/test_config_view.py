"""What is shown of a configuration holds every setting and no secret; its schema says the same to an editor."""

from __future__ import annotations

import json
import re
import tomllib
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from magmobo.contracts.configuration import ConfigChange, ConfigEntry
from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import LIVE, NEEDS_NODE_RESTART, Effect
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.differences import changed_settings
from magmobo.kernel.config.layers import Layer, environment_layer, toml_layer
from magmobo.kernel.config.loader import Config, load_config
from magmobo.kernel.config.references import References
from magmobo.kernel.config.schema import tree_schema
from magmobo.kernel.config.view import change, entries


class Mode(Enum):
    FAST = "fast"
    SAFE = "safe"


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One app."""

    id: Annotated[str, Meta(pattern="^[0-9]+$", description="its number")]
    secret: Annotated[Secret, LIVE]
    note: str = ""


class Jwt(Struct, frozen=True, kw_only=True):
    secret: Secret | None = None
    leeway_s: Annotated[int, Meta(ge=0, le=60)] = 0


class Sample(Struct, frozen=True, kw_only=True):
    """Section [sample]."""

    port: Annotated[Annotated[int, Meta(ge=0, le=65_535)] | None, Meta(description="TCP port"), LIVE] = None
    size: Annotated[int, Meta(gt=0, lt=10, multiple_of=3)] = 3
    mode: Mode = Mode.FAST
    level: Literal["low", "high"] = "low"
    folder: Path | None = Path("x")
    dsn: Annotated[Secret | None, Meta(description="the database")] = None
    hook: str = ""
    password: str = ""
    token_limit: int = 5
    mixed: int | str = 1
    tables: Annotated[tuple[str, ...], Meta(max_length=2, description="to show")] = ()
    apps: Annotated[list[App], NEEDS_NODE_RESTART] = []
    jwt: Annotated[Jwt | None, Meta(description="how tokens are verified")] = None
    base: Jwt = Jwt(leeway_s=1)
    labels: dict[str, Annotated[int, Meta(ge=0)]] = {}
    tokens: dict[str, Secret] = msgspec.field(default_factory=lambda: {"a": Secret("made-up")})
    needed: str = ""


class Needy(Struct, frozen=True, kw_only=True):
    address: str


SECTIONS: dict[str, type[Struct]] = {"sample": Sample, "logging": CORE_SECTIONS["logging"]}
HIDDEN = "***"


def load(values: dict[str, Any], **environ: str) -> Config:
    layers = [Layer("mag.toml", "mag.toml", {"sample": values}), environment_layer(environ)]
    references = References(environ={"X": "from-env"}, credentials_dir=None, base_dir=Path())
    return load_config(SECTIONS, layers, resolve=references)


def shown(config: Config, **arguments: Any) -> dict[str, ConfigEntry]:
    return {entry.key: entry for entry in entries(config, SECTIONS, **arguments)}


# ---------------------------------------------------------------- entries


def test_every_setting_is_shown_with_who_set_it_and_what_a_change_takes() -> None:
    values = {"port": 5, "labels": {"a": 1, "b.c": 2}, "apps": [{"id": "1", "secret": "hunter2"}], "dsn": "env:X"}
    found = shown(load(values, MAG_SAMPLE__SIZE="6", MAG_SAMPLE__JWT__SECRET="hunter2"))
    assert found["sample.port"] == ConfigEntry("sample.port", 5, "mag.toml", "file", Effect.LIVE)
    assert found["sample.size"] == ConfigEntry(
        "sample.size", 6, "environment MAG_SAMPLE__SIZE", "environment", Effect.COMPONENT
    )
    assert found["sample.dsn"] == ConfigEntry(
        "sample.dsn", HIDDEN, "mag.toml", "file", Effect.COMPONENT, is_secret=True, reference="env:X"
    )
    assert found["sample.mode"] == ConfigEntry("sample.mode", "fast", "default", "default", Effect.COMPONENT)
    assert found["sample.folder"].value == "x"
    assert found["sample.tables"].value == []
    assert found['sample.labels."b.c"'].value == 2
    assert found["sample.jwt.secret"].value == HIDDEN
    assert found["sample.base.secret"] == ConfigEntry(
        "sample.base.secret", None, "default", "default", Effect.COMPONENT, is_secret=True
    )
    assert found["sample.tokens.a"].value == HIDDEN
    assert found["sample.apps"].value == [{"id": "1", "secret": HIDDEN, "note": ""}]
    assert found["sample.apps"].effect is Effect.NODE
    assert found["logging.level"].effect is Effect.LIVE
    assert not found["sample.token_limit"].is_secret
    assert found["sample.token_limit"].value == 5
    assert [key for key in found if key.startswith("sample.jwt")] == ["sample.jwt.secret", "sample.jwt.leeway_s"]
    assert shown(load({}))["sample.jwt"].value is None
    assert shown(load({"labels": {}}))["sample.labels"].value == {}


def test_text_that_sounds_secret_is_hidden_and_an_empty_one_is_not() -> None:
    found = shown(load({"password": "hunter2", "hook": "https://u:hunter2@h/x"}))
    assert (found["sample.password"].value, found["sample.password"].is_secret) == (HIDDEN, True)
    assert (found["sample.hook"].value, found["sample.hook"].is_secret) == ("https://u:***@h/x", False)
    assert shown(load({}))["sample.password"].value == ""


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [
        ("sample.base", ["sample.base.secret", "sample.base.leeway_s"]),
        ("sample.port", ["sample.port"]),
        ("sample.po", []),
        ("sample.apps[0].secret", ["sample.apps"]),
        ("logging", ["logging.level", "logging.format"]),
        ("nothing", []),
    ],
)
def test_a_prefix_shows_what_is_inside_of_it(prefix: str, keys: list[str]) -> None:
    assert list(shown(load({}), prefix=prefix)) == keys


def test_a_configuration_with_other_values_knows_who_set_them() -> None:
    config = load({"port": 1})
    other = config.replaced({"sample": Sample(port=2)})
    assert (config.section("sample").port, other.section("sample").port) == (1, 2)
    assert (other.origin("sample.port"), other.layer("sample.port")) == ("mag.toml", "file")
    assert list(other.sections) == ["sample", "logging"]


def test_what_waits_and_what_ends_is_marked() -> None:
    found = shown(load({}), waiting={"sample.port"}, expires={"sample.size": "2030-01-01T00:00:00Z"})
    assert [key for key, entry in found.items() if entry.waiting] == ["sample.port"]
    assert [key for key, entry in found.items() if entry.expires_at] == ["sample.size"]


# ---------------------------------------------------------------- changes


def test_a_change_shows_before_and_after_but_no_secret() -> None:
    old = load({"dsn": "a", "hook": "http://u:hunter2@h", "labels": {"a.b": 1}, "apps": [{"id": "1", "secret": "x"}]})
    new = load({"dsn": "b", "port": 3, "apps": [{"id": "2", "secret": "y"}]}, MAG_SAMPLE__JWT__LEEWAY_S="3")
    found = {key: change(key, old, new) for key in changed_settings(old, new)}
    assert found == {
        "sample.dsn": ConfigChange("sample.dsn", HIDDEN, HIDDEN, "mag.toml", Effect.COMPONENT, is_secret=True),
        "sample.port": ConfigChange("sample.port", None, 3, "mag.toml", Effect.LIVE),
        "sample.hook": ConfigChange("sample.hook", "http://u:***@h", "", "default", Effect.COMPONENT),
        'sample.labels."a.b"': ConfigChange('sample.labels."a.b"', 1, None, "default", Effect.COMPONENT),
        "sample.jwt.leeway_s": ConfigChange(
            "sample.jwt.leeway_s", None, 3, "environment MAG_SAMPLE__JWT__LEEWAY_S", Effect.COMPONENT
        ),
        "sample.jwt.secret": ConfigChange("sample.jwt.secret", None, None, "default", Effect.COMPONENT, is_secret=True),
        "sample.apps": ConfigChange(
            "sample.apps",
            [{"id": "1", "secret": HIDDEN, "note": ""}],
            [{"id": "2", "secret": HIDDEN, "note": ""}],
            "mag.toml",
            Effect.NODE,
        ),
    }


def test_a_section_that_comes_or_goes_is_a_change_of_all_its_keys() -> None:
    with_it = load_config({"logging": CORE_SECTIONS["logging"]}, [])
    without = load_config({}, [])
    assert change("logging.level", without, with_it).new == "info"
    assert change("logging.level", with_it, without).old == "info"


# ---------------------------------------------------------------- planted secrets

PLANTED = "Hunter2-do-not-show"
planted = st.sampled_from(
    [
        PLANTED,
        f"postgres://u:{PLANTED}@h/db",
        f"plain:{PLANTED}",
        f"vault:{PLANTED}",
        "a${env:HELD}",
        f"a${{vault:{PLANTED}",
    ]
)
broken = planted | st.lists(planted, max_size=2) | st.dictionaries(st.sampled_from(["x", "secret"]), planted)
documents = st.fixed_dictionaries(
    {"dsn": planted},
    optional={
        "password": broken,
        "jwt": broken | st.dictionaries(st.sampled_from(["secret", "leeway_s", "scret"]), broken),
        "apps": broken | st.lists(st.dictionaries(st.sampled_from(["id", "secret", "note", "x"]), broken), max_size=2),
        "tokens": broken,
        "port": planted,
        "mode": planted,
        "size": planted,
        "level": planted,
        "tables": planted,
        "hook": st.just(f"https://x:{PLANTED}@h"),
    },
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


@settings(deadline=None)  # a busy machine is not a failure
@given(values=documents, cut=st.none() | st.integers(0, 2_000))
def test_neither_a_problem_nor_a_view_ever_holds_a_planted_secret(
    values: dict[str, Any], cut: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "planted.toml"
    first = f"[sample]\ndsn = {toml(values['dsn'])}\n"  # so that it is known to be a secret wherever the file ends
    text = first + "".join(f"{key} = {toml(value)}\n" for key, value in values.items() if key != "dsn")
    path.write_text(text if cut is None else text[: cut % len(text)])
    references = References(environ={"HELD": PLANTED}, credentials_dir=None, base_dir=Path())
    said = ""
    try:
        config = load_config(SECTIONS, [toml_layer(path, "planted")], resolve=references)
        found = [entry for key, entry in shown(config).items() if key not in ("sample.tables", "sample.apps")]
        said = msgspec.json.encode([*found, change("sample.dsn", config, config)]).decode()
    except ConfigError as error:
        said = str(error)
    assert PLANTED not in said


def test_the_error_of_a_section_of_its_own_shows_no_secret() -> None:
    class Talkative(Struct, frozen=True):
        dsn: Secret
        limit: int = 0

        def __post_init__(self) -> None:
            if self.limit:
                raise ValueError(f"cannot use {self.dsn.reveal()} nor its password {self.dsn.reveal()[13:20]}")

    layer = Layer("x", "x", {"talk": {"dsn": "postgres://u:hunter2@h", "limit": 1}})
    with pytest.raises(ConfigError) as caught:
        load_config({"talk": Talkative}, [layer])
    assert caught.value.problems == ["talk: cannot use *** nor its password *** (x)"]


def test_a_wrong_value_under_a_name_that_sounds_secret_is_not_shown() -> None:
    class Plain(Struct, frozen=True):
        password: Annotated[str, Meta(min_length=20)] = ""
        options: dict[str, int] = {}

    layer = Layer("x", "x", {"plain": {"password": "hunter2", "options": {"api_key": "hunter3"}}})
    with pytest.raises(ConfigError) as caught:
        load_config({"plain": Plain}, [layer])
    assert caught.value.problems == [
        "plain.options.api_key = ***: expected a whole number (x)",
        "plain.password = ***: expected text, at least 20 long (x)",
    ]


def test_a_password_in_an_ordinary_url_is_hidden_in_every_kind_of_problem() -> None:
    class Hook(Struct, frozen=True):
        first: Annotated[str, Meta(pattern="^https:")] = "https://x"
        second: str = ""

        def __post_init__(self) -> None:
            if self.second:
                raise ValueError(f"cannot reach {self.second}")

    for values in ({"first": f"http://u:{'hunter2' * 20}@h"}, {"second": "http://u:hunter2@h"}):
        with pytest.raises(ConfigError) as caught:
            load_config({"hook": Hook}, [Layer("x", "x", {"hook": values})])
        assert "http://u:***@h" in str(caught.value)
        assert "hunter2" not in str(caught.value)


# ---------------------------------------------------------------- schema


def fits(schema: dict[str, Any], value: Any) -> bool:
    """As much of JSON Schema as `tree_schema` speaks; an unknown word is a mistake of the schema."""
    types = {"object": dict, "array": list, "string": str, "boolean": bool}
    checks = {
        "type": lambda name: (
            (isinstance(value, int) or (name == "number" and isinstance(value, float))) and not isinstance(value, bool)
            if name in ("integer", "number")
            else isinstance(value, types[name])
        ),
        "enum": lambda choices: value in choices,
        "minimum": lambda least: value >= least,
        "maximum": lambda most: value <= most,
        "exclusiveMinimum": lambda least: value > least,
        "exclusiveMaximum": lambda most: value < most,
        "multipleOf": lambda step: value % step == 0,
        "pattern": lambda pattern: re.search(pattern, value) is not None,
        "minLength": lambda least: len(value) >= least,
        "maxLength": lambda most: len(value) <= most,
        "minItems": lambda least: len(value) >= least,
        "maxItems": lambda most: len(value) <= most,
        "items": lambda inner: all(fits(inner, item) for item in value),
        "required": lambda names: set(names) <= value.keys(),
        "properties": lambda known: all(fits(known[name], item) for name, item in value.items() if name in known),
        "additionalProperties": lambda inner: all(
            inner is not False and fits(inner, item)
            for name, item in value.items()
            if name not in schema.get("properties", {})
        ),
        "anyOf": lambda options: any(fits(option, value) for option in options),
    }
    notes = {"$schema", "title", "description", "default", "format", "writeOnly", "x-reload", "x-capability"}
    assert schema.keys() <= checks.keys() | notes
    order = ["type", *(word for word in schema if word != "type")]
    return all(checks[word](schema[word]) for word in order if word in schema and word in checks)


SCHEMA = tree_schema({**SECTIONS, "needy": Needy})


@pytest.mark.parametrize(
    ("document", "is_fine"),
    [
        ("", True),
        ("[sample]\nport = 5\nsize = 3\nmode = 'safe'\nmixed = 'x'\nfolder = '/x'\ntables = ['a', 'b']", True),
        ("[sample]\njwt.secret = 'vault:jwt'\nlabels.anything = 3\ntokens.x = 's'", True),
        ("[[sample.apps]]\nid = '1'\nsecret = 's'", True),
        ("[needy]", True),
        ("[smaple]", False),
        ("[sample]\nprot = 5", False),
        ("[sample]\nport = 70000", False),
        ("[sample]\nport = '5'", False),
        ("[sample]\nsize = 4", False),
        ("[sample]\nsize = 12", False),
        ("[sample]\nmode = 'slow'", False),
        ("[sample]\nlevel = 'mid'", False),
        ("[sample]\nmixed = 1.5", False),
        ("[sample]\ndsn = 5", False),
        ("[sample]\ntables = ['a', 'b', 'c']", False),
        ("[sample]\ntables = [1]", False),
        ("[sample]\nlabels.x = -1", False),
        ("[sample]\njwt.leeway_s = 61", False),
        ("[sample]\njwt.scret = 'x'", False),
        ("[[sample.apps]]\nid = '1'", False),
        ("[[sample.apps]]\nid = 'x'\nsecret = 's'", False),
    ],
)
def test_an_editor_warns_of_what_the_node_refuses(document: str, is_fine: bool) -> None:
    values = tomllib.loads(document)
    assert fits(SCHEMA, values) is is_fine
    sections = {**SECTIONS, "needy": Needy} if "needy" in values else SECTIONS
    layers = [Layer("x", "x", values), Layer("y", "y", {"needy": {"address": "x"}} if "needy" in values else {})]
    try:
        load_config(sections, layers)
    except ConfigError:
        assert not is_fine
    else:
        assert is_fine


def test_the_schema_describes_every_key() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    sample = SCHEMA["properties"]["sample"]
    assert (sample["description"], sample["x-reload"]) == ("Section [sample].", "component")
    assert SCHEMA["properties"]["logging"]["x-reload"] == "node"
    keys = sample["properties"]
    assert keys["port"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 65_535,
        "description": "TCP port",
        "x-reload": "live",
    }
    assert keys["dsn"] == {
        "type": "string",
        "format": "password",
        "writeOnly": True,
        "description": "the database",
        "x-capability": "kernel.config.authority",
    }
    assert keys["folder"] == {"type": "string", "default": "x"}
    assert keys["mode"] == {"enum": ["fast", "safe"], "default": "fast"}
    assert keys["tables"] == {
        "type": "array",
        "items": {"type": "string"},
        "maxItems": 2,
        "description": "to show",
        "default": [],
    }
    assert keys["jwt"]["description"] == "how tokens are verified"
    assert (keys["apps"]["x-reload"], keys["apps"]["items"]["properties"]["secret"]["x-reload"]) == ("node", "live")
    assert "default" not in keys["tokens"]


def test_the_schema_of_the_core_sections_takes_their_defaults() -> None:
    schema = tree_schema(CORE_SECTIONS)
    for name, section in CORE_SECTIONS.items():
        values = {
            key: item["default"] for key, item in schema["properties"][name]["properties"].items() if "default" in item
        }
        assert fits(schema, {name: values})
        assert load_config({name: section}, [Layer("x", "x", {name: values})]).section(name) == section()
