"""The layers of a node, read as often as asked: references, the vault, files that vanish."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import CORE_SECTIONS, VaultConfig
from magmobo.kernel.config.guard import FileGuard
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.source import Runtime, RuntimeSetting
from magmobo.kernel.vault.opening import open_vault
from magmobo.node.configuration import NodeConfigSource
from magmobo.node.settings import NodeOptions, read_settings


class Storage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dsn: Secret | None = None
    size: Annotated[int, Meta(ge=1)] = 1
    schema: str = "public"


SECTIONS = {**CORE_SECTIONS, "magds": Storage}


NOTHING = Runtime()


class Place:
    """A folder with files of settings, a data folder with a vault, and a node's source of both."""

    def __init__(self, folder: Path, environ: dict[str, str] | None = None, **chosen: Any) -> None:
        self.folder, self.data_dir = folder, folder / "mag_data"
        (self.data_dir / "secrets").mkdir(parents=True, exist_ok=True)
        self.options = NodeOptions(working_dir=folder, environ=environ or {}, **chosen)
        self.source = self.another()

    def another(self) -> NodeConfigSource:
        """That of the next start."""
        guard = FileGuard(self.data_dir / "config" / "files.json", self.folder)
        return NodeConfigSource(self.options, read_settings(self.options), SECTIONS, guard=guard)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def keep(self, **secrets: str) -> None:
        vault = open_vault(VaultConfig(), self.data_dir)
        vault.write({name.replace("__", "."): text for name, text in secrets.items()}, pinned={})
        vault.close()

    def storage(self, runtime: Runtime = NOTHING, *, accept_removed: bool = False) -> Storage:
        base = self.source.read_now(accept_removed=accept_removed)
        built = self.source.build_now(base, runtime)
        self.source.accepted_now(base)
        section: Storage = built.config.section("magds")
        return section


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_changed_file_is_read_again(place: Place) -> None:
    assert place.storage().size == 1
    place.write("mag.toml", "[magds]\nsize = 2")
    assert place.storage().size == 2
    place.write("mag.d/more.toml", "[magds]\nsize = 3")
    assert place.storage().size == 3
    patched = Runtime(patches={"magds.size": RuntimeSetting("4", "uid:0", 1.0, 2.0)})
    assert place.storage(patched).size == 4


def test_the_environment_of_the_running_node_chooses_the_files(place: Place) -> None:
    place.write("mag.production.toml", "[magds]\nsize = 9")
    place.write("mag.toml", '[kernel]\nenvironment = "production"\n[magds]\nsize = 2')
    assert place.storage().size == 2


def test_references_are_followed_and_noted(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "db").write_text("postgres://c\n")
    place = Place(tmp_path, {"CREDENTIALS_DIRECTORY": str(credentials), "DB": "postgres://e"})
    place.keep(db="p@ss/word")
    place.write("secret", "postgres://f\n")
    expected = {
        "vault:db": "p@ss/word", "file:secret": "postgres://f", "cred:db": "postgres://c", "env:DB": "postgres://e",
        "postgres://u:${vault:db}@h/d": "postgres://u:p%40ss%2Fword@h/d", "plain:vault:db": "vault:db",
    }  # fmt: skip
    for said, found in expected.items():
        place.write("mag.toml", f'[magds]\ndsn = "{said}"\nschema = "vault:db"')
        built = place.source.build_now(place.source.read_now(), NOTHING)
        assert built.config.section("magds").dsn == Secret(found), said
        assert built.config.section("magds").schema == "vault:db"  # no secret, so no reference
        assert [read.key for read in built.reads] == ([] if said.startswith("plain") else ["magds.dsn"]), said
        assert found not in repr(built.reads)


@pytest.mark.parametrize("said", ["vault:none", "vault:db@7", "file:none", "cred:none", "env:NONE", "vault:Not A Name"])
def test_a_reference_that_leads_nowhere_is_one_problem_among_all(place: Place, said: str) -> None:
    place.keep(db="x")
    place.write("mag.toml", f'[magds]\ndsn = "{said}"\nsize = 0')
    with pytest.raises(ConfigError) as raised:
        place.storage()
    assert len(raised.value.problems) == 2
    assert all("mag.toml line" in problem for problem in raised.value.problems)


def test_a_secret_with_the_name_of_a_setting_is_that_setting(place: Place) -> None:
    place.keep(magds__dsn="postgres://kept", magds__size="7", magds__none="x")
    assert place.storage() == Storage(dsn=Secret("postgres://kept"))
    place.write("mag.toml", '[magds]\ndsn = "postgres://file"')
    built = place.source.build_now(place.source.read_now(), NOTHING)
    assert built.config.section("magds").dsn == Secret("postgres://kept")
    assert (built.config.layer("magds.dsn"), built.config.reference("magds.dsn")) == ("vault", "vault:magds.dsn")
    assert Place(place.folder, {"DATABASE_URL": "postgres://env"}).storage().dsn == Secret("postgres://env")


def test_the_vault_cannot_keep_its_own_key(place: Place) -> None:
    place.keep(key="0" * 64)
    place.write("mag.toml", '[vault]\nkey = "vault:key"')
    with pytest.raises(ConfigError, match=r"vault\.key"):
        place.storage()


def test_a_file_that_vanished_or_was_cut_off_keeps_what_counts_until_it_is_said_to_be_meant(place: Place) -> None:
    whole = "[magds]\nsize = 25\n\n[health]\ninterval_s = 5\n"
    file = place.write("mag.toml", whole)
    assert place.storage().size == 25
    for text in (None, "", whole[:20], whole[:18], whole[:16], whole[:8]):
        file.unlink() if text is None else file.write_text(text)
        with pytest.raises(ConfigError, match=r"mag\.toml"):
            place.storage()
        with pytest.raises(ConfigError, match=r"mag\.toml"):
            place.another().read_now()  # the next start refuses it as well
        place.write("mag.toml", whole)
        assert place.storage().size == 25
    file.unlink()
    assert place.storage(accept_removed=True).size == 1
    assert place.storage().size == 1


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: path.mkdir()])
def test_what_is_no_file_is_refused_at_once(place: Place, make: Any) -> None:
    make(place.folder / "mag.toml")
    with pytest.raises(ConfigError, match=r"mag\.toml"):
        place.storage()


def test_secrets_of_the_environment_lie_beside_and_are_for_their_owner_alone(place: Place) -> None:
    place.write("mag.toml", '[magds]\ndsn = "postgres://file"')
    file = place.write("secrets/development.toml", '[magds]\ndsn = "postgres://secret"')
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="secrets/development"):
        place.storage()
    file.chmod(0o600)
    assert place.storage().dsn == Secret("postgres://secret")


def test_the_users_database_is_found_without_its_component(place: Place) -> None:
    place.keep(db="p@ss")
    place.write("mag.toml", '[magds]\ndsn = "postgres://u:${vault:db}@h/d"')
    source = NodeConfigSource(place.options, read_settings(place.options), {})
    assert source.dsn() == Secret("postgres://u:p%40ss@h/d")
    place.write("mag.toml", '[magds]\ndsn = "vault:none"')
    with pytest.raises(ConfigError, match="none"):
        NodeConfigSource(place.options, read_settings(place.options), {}).dsn()


def test_the_section_of_who_joined_counts_and_asks_for_nothing_when_it_has_left(place: Place) -> None:
    class Demanding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        size: int

    class Content(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        size: int = 3

    def sections() -> dict[str, Any]:
        built = place.source.build_now(place.source.read_now(accept_removed=True), NOTHING)
        return {name: built.config.section(name) for name in built.config.sections}

    place.source.add_section("demanding", Demanding)
    place.source.add_section("content", Content)
    assert "demanding" not in sections()
    assert sections()["content"] == Content()
    place.write("mag.toml", "[demanding]\nsize = 5\n")
    assert sections()["demanding"] == Demanding(size=5)
    place.write("mag.toml", "[demanding]\nsize = 'x'\n")
    with pytest.raises(ConfigError, match=r"demanding\.size"):
        sections()


def test_what_a_node_made_up_counts_for_who_joins_too(tmp_path: Path) -> None:
    options = NodeOptions(working_dir=tmp_path, environ={})
    made_up = Layer("generated", "generated", {"magds": {"schema": "made_up"}}, kind="generated")
    source = NodeConfigSource(options, read_settings(options), CORE_SECTIONS, generated=made_up)
    assert "magds" not in source.read_now().values
    source.add_section("magds", Storage)
    assert source.build_now(source.read_now(), NOTHING).config.section("magds").schema == "made_up"
