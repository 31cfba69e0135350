"""Which layer wins, and what the node refuses to start with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.source import Runtime
from magmobo.node.components import DEFAULT_COMPONENTS, DEMO_COMPONENT, component_names, load_components
from magmobo.node.configuration import NodeConfigSource
from magmobo.node.errors import ComponentNotLoadable, DemoUnknown
from magmobo.node.settings import NodeOptions, Settings, demo_layer, read_settings, watched_files


class Listening(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: int = 1
    host: str = "default"


SECTIONS = {**CORE_SECTIONS, "listener": Listening}


def options(place: Path, environ: dict[str, str] | None = None, **chosen: Any) -> NodeOptions:
    return NodeOptions(working_dir=place, environ=environ or {}, **chosen)


def config_of(settings: Settings, sections: Mapping[str, type[Struct]], generated: Layer | None = None) -> Config:
    source = NodeConfigSource(NodeOptions(), settings, sections, generated=generated)
    return source.build_now(source.base_of(settings), Runtime()).config


def dsn_of(chosen: NodeOptions) -> Secret | None:
    return NodeConfigSource(chosen, read_settings(chosen), {}).dsn()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_later_layers_win(tmp_path: Path) -> None:
    generated = Layer("generated", "generated", {"listener": {"port": 2}})

    def port(environ: dict[str, str] | None = None, **chosen: Any) -> int:
        settings = read_settings(options(tmp_path, environ, **chosen))
        section: Listening = config_of(settings, SECTIONS, generated).section("listener")
        return section.port

    assert port() == 2
    write(tmp_path / "mag.toml", "[listener]\nport = 3")
    assert port() == 3
    write(tmp_path / "mag.development.toml", "[listener]\nport = 4")
    write(tmp_path / "mag.production.toml", "[listener]\nport = 40")
    assert port() == 4
    assert port(environment="production") == 40
    write(tmp_path / "mag.d" / "10.toml", "[listener]\nport = 5")
    write(tmp_path / "mag.d" / "20.toml", "[listener]\nport = 6")
    assert port() == 6
    assert port({"MAG_LISTENER__PORT": "7"}) == 7
    assert port({"MAG_LISTENER__PORT": "7"}, port=8) == 8


def test_the_named_file_stands_in_for_mag_toml_with_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "mag.toml", "[listener]\nport = 3")
    write(tmp_path / "etc" / "node.toml", "[listener]\nport = 4")
    write(tmp_path / "etc" / "mag.development.toml", '[listener]\nhost = "near"')
    settings = read_settings(options(tmp_path, config_file=tmp_path / "etc" / "node.toml"))
    assert config_of(settings, SECTIONS).section("listener") == Listening(port=4, host="near")


def test_files_that_variables_name_are_watched(tmp_path: Path) -> None:
    named = {"MAG_MAGGATE__JWT__SECRET_FILE": "/run/jwt", "DATABASE_URL_FILE": "/run/dsn"}
    others = {"PORT_FILE": "", "OTHER_FILE": "/run/other", "MAG_LISTENER__PORT": "/run/port"}
    watched = watched_files(options(tmp_path, named | others), "production")
    assert {str(path) for path in watched if path.parent == Path("/run")} == {"/run/jwt", "/run/dsn"}
    assert Path() not in watched


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        read_settings(options(tmp_path, config_file=tmp_path / "absent.toml"))


def test_the_data_folder_is_found_before_all_else(tmp_path: Path) -> None:
    assert read_settings(options(tmp_path)).folder.path == tmp_path / "mag_data"
    write(tmp_path / "mag.toml", '[kernel]\ndata_dir = "elsewhere"')
    assert read_settings(options(tmp_path)).folder.path == tmp_path / "elsewhere"
    assert read_settings(options(tmp_path, data_dir=Path("/chosen"))).folder.path == Path("/chosen")


def test_a_file_may_not_change_the_environment_that_chose_it(tmp_path: Path) -> None:
    write(tmp_path / "mag.d" / "late.toml", '[kernel]\nenvironment = "production"')
    with pytest.raises(ConfigError, match="environment"):
        read_settings(options(tmp_path))


def test_what_is_made_up_for_absent_components_is_left_out_but_a_users_section_is_not(tmp_path: Path) -> None:
    made_up = Layer("generated", "generated", {"magws": {"apps": []}, "listener": {"port": 2}})
    config_of(read_settings(options(tmp_path)), SECTIONS, made_up)
    write(tmp_path / "mag.toml", "[magws]\napps = []")
    with pytest.raises(ConfigError, match="magws"):
        config_of(read_settings(options(tmp_path)), SECTIONS, made_up)


def test_the_database_is_the_one_named_last(tmp_path: Path) -> None:
    assert dsn_of(options(tmp_path)) is None
    write(tmp_path / "mag.toml", '[magds]\ndsn = "postgres://file"')
    assert dsn_of(options(tmp_path)) == Secret("postgres://file")
    assert dsn_of(options(tmp_path, {"DATABASE_URL": "postgres://env"})) == Secret("postgres://env")
    said = options(tmp_path, {"DATABASE_URL": "postgres://env"}, dsn="postgres://argument")
    assert dsn_of(said) == Secret("postgres://argument")


@pytest.mark.parametrize("name", ["nothing", "../../etc/passwd", "", "flights/../tasks", "a" * 5000])
def test_an_unknown_demo_is_refused(name: str) -> None:
    with pytest.raises(DemoUnknown):
        demo_layer(name)


def test_a_demo_joins_the_list_of_components_once() -> None:
    assert list(component_names((), demo=False)) == list(DEFAULT_COMPONENTS)
    assert list(component_names((), demo=True)) == [*DEFAULT_COMPONENTS, DEMO_COMPONENT]
    assert list(component_names(("a:B", DEMO_COMPONENT), demo=True)) == ["a:B", DEMO_COMPONENT]


@pytest.mark.parametrize(
    "name", ["", "json", "json:", ":x", "no_such_module:X", "json:NoSuch", "json:dumps", "json:JSONDecoder", "..x:Y"]
)
def test_a_name_that_is_no_component_is_refused(name: str) -> None:
    with pytest.raises(ComponentNotLoadable):
        load_components([name])


def test_components_left_out_on_the_command_line_stand_in_for_the_configured_ones(tmp_path: Path) -> None:
    assert read_settings(options(tmp_path)).kernel.without == ()
    write(tmp_path / "mag.toml", '[kernel]\nwithout = ["magws"]')
    assert read_settings(options(tmp_path)).kernel.without == ("magws",)
    assert read_settings(options(tmp_path, without=("maggate", "demo"))).kernel.without == ("maggate", "demo")


def test_what_only_the_command_line_can_ask_for(tmp_path: Path) -> None:
    plain, asked = read_settings(options(tmp_path)), read_settings(options(tmp_path, safe=True, only=("magds",)))
    assert (plain.safe, plain.only) == (False, ())
    assert (asked.safe, asked.only) == (True, ("magds",))
