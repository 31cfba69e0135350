"""A secret may be kept elsewhere: references are followed, or refused with a reason that shows no secret."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from magmobo.contracts.errors import ConfigError, SecretUnknown, VaultUnavailable
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.errors import ReferenceFailed, SecretsFileExposed
from magmobo.kernel.config.layers import (
    MAX_FILE_BYTES,
    Layer,
    credentials_layer,
    environment_layer,
    file_content,
    parsed_layer,
    toml_layer,
)
from magmobo.kernel.config.loader import Config, load_config
from magmobo.kernel.config.references import References
from magmobo.kernel.config.source import SecretRead
from magmobo.kernel.errors import ConfigFileError


class App(Struct, frozen=True, kw_only=True):
    id: str = ""
    secret: Secret | None = None


class Sample(Struct, frozen=True, kw_only=True):
    dsn: Secret | None = None
    name: str = ""
    apps: tuple[App, ...] = ()
    tokens: dict[str, Secret] = {}
    keys: list[Secret] = []


class VaultSection(Struct, frozen=True, kw_only=True):
    token: Secret | None = None


SECTIONS: dict[str, type[Struct]] = {"sample": Sample, "vault": VaultSection}
VAULT = {"app": ["old p@ss", "new p@ss/word"], "empty": [""], "odd": ["it's a \\ b"]}


def read_vault(name: str, version: int | None) -> tuple[str, int]:
    versions = VAULT.get(name, [])
    number = version or len(versions)
    if not 0 < number <= len(versions):
        raise SecretUnknown(name, version)
    return versions[number - 1], number


class Node:
    """What surrounds a configuration: environment, credentials, vault, and the files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.credentials = folder / "credentials"
        self.credentials.mkdir()
        self.references = References(
            environ={"APP_TOKEN": "from environment", "NOTHING": ""},
            credentials_dir=self.credentials,
            base_dir=folder,
            read_vault=read_vault,
        )

    def load(self, sample: dict[str, Any], origin: str = "") -> Config:
        layer = Layer("x", origin or str(self.folder / "mag.toml line 3"), {"sample": sample})
        return load_config(SECTIONS, [layer], resolve=self.references)

    def dsn(self, text: str) -> str:
        found: Secret = self.load({"dsn": text}).section("sample").dsn
        return found.reveal()

    def problems(self, sample: dict[str, Any]) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(sample, "mag.toml line 3")
        return caught.value.problems


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


# ---------------------------------------------------------------- followed


def test_each_kind_leads_to_its_secret(node: Node) -> None:
    (node.folder / "key").write_text("from file\n")
    (node.credentials / "db").write_text("from credential")
    assert node.dsn("vault:app") == "new p@ss/word"
    assert node.dsn("vault:app@1") == "old p@ss"
    assert node.dsn("env:APP_TOKEN") == "from environment"
    assert node.dsn("cred:db") == "from credential"
    assert node.dsn(f"file:{node.folder / 'key'}") == node.dsn("file:key") == "from file"
    assert node.dsn("plain:vault:app") == "vault:app"
    assert node.dsn("plain:${vault:app}") == "${vault:app}"
    assert node.dsn("an ordinary: secret $ {x} vault:app") == "an ordinary: secret $ {x} vault:app"


def test_a_path_starts_in_the_folder_of_the_file_that_says_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    (node.folder / "mag.d").mkdir()
    (node.folder / "mag.d" / "key").write_text("beside mag.d")
    (node.folder / "key").write_text("beside mag.toml")
    path = node.folder / "mag.d" / "1 line.toml"
    path.write_text('[sample]\ndsn = "file:key"')

    def dsn(*layers: Layer) -> Secret:
        found: Secret = load_config(SECTIONS, layers, resolve=node.references).section("sample").dsn
        return found

    assert dsn(toml_layer(path, "1")) == Secret("beside mag.d")
    assert dsn(environment_layer({"MAG_SAMPLE__DSN": "file:key"})) == Secret("beside mag.toml")
    monkeypatch.chdir(node.folder)
    assert dsn(toml_layer(path, "1")) == Secret("beside mag.d"), "also when the path is shown shortened"


def test_secrets_in_lists_and_tables_may_be_references_and_only_secrets(node: Node) -> None:
    config = node.load(
        {
            "name": "vault:app",
            "apps": [{"id": "vault:app", "secret": "vault:app@1"}, {"secret": "said"}],
            "tokens": {"a": "env:APP_TOKEN", "b.c": "vault:app@1"},
            "keys": ["vault:app", "env:APP_TOKEN"],
        }
    )
    sample = config.section("sample")
    assert sample.name == "vault:app"
    assert sample.apps == (App(id="vault:app", secret=Secret("old p@ss")), App(secret=Secret("said")))
    assert sample.tokens == {"a": Secret("from environment"), "b.c": Secret("old p@ss")}
    assert [key.reveal() for key in sample.keys] == ["new p@ss/word", "from environment"]
    assert config.reference("sample.apps[0].secret") == config.reference("sample.apps") == "vault:app@1"
    assert config.reference('sample.tokens."b.c"') == "vault:app@1"
    assert config.reference("sample") == "vault:app@1, env:APP_TOKEN, vault:app"
    assert config.reference("sample.apps[1].secret") == config.reference("sample.name") == ""


def test_every_read_is_noted_and_each_secret_is_read_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    (node.folder / "key").write_text("first")
    node.load({"dsn": "vault:app", "keys": ["vault:app", "vault:app@1", "file:key"], "tokens": {"a": "said"}})
    monkeypatch.setitem(VAULT, "app", ["changed"])
    (node.folder / "key").write_text("second")
    assert node.dsn("vault:app") == "new p@ss/word"
    assert node.dsn("file:key") == "first"
    assert node.references.reads == [
        SecretRead("sample.dsn", "vault:app", 2),
        SecretRead("sample.keys[0]", "vault:app", 2),
        SecretRead("sample.keys[1]", "vault:app@1", 1),
        SecretRead("sample.keys[2]", "file:key", None),
        SecretRead("sample.dsn", "vault:app", 2),
        SecretRead("sample.dsn", "file:key", None),
    ]


def test_reads_are_noted_once_although_a_refused_section_is_looked_at_twice(node: Node) -> None:
    with pytest.raises(ConfigError):
        node.load({"dsn": "vault:app", "name": 3})
    assert node.references.reads == [SecretRead("sample.dsn", "vault:app", 2)]


# ---------------------------------------------------------------- inside of a longer text


def test_a_reference_inside_of_a_url_is_encoded(node: Node) -> None:
    dsn = node.dsn("postgres://u:${vault:app}@h/db?x=${vault:app@1}")
    assert dsn == "postgres://u:new%20p%40ss%2Fword@h/db?x=old%20p%40ss"


def test_a_reference_inside_of_a_connection_string_is_escaped(node: Node) -> None:
    assert node.dsn("host=h password=${vault:odd} dbname=x") == r"host=h password=it\'s\ a\ \\\ b dbname=x"
    assert node.dsn("Bearer ${vault:odd}") == r"Bearer it's a \ b"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_no_secret_breaks_out_of_its_place(secret: str) -> None:
    from psycopg.conninfo import conninfo_to_dict

    references = References(environ={"X": secret}, credentials_dir=None, base_dir=Path())

    def dsn(text: str) -> str:
        layer = Layer("x", "x", {"sample": {"dsn": text}})
        found: Secret = load_config(SECTIONS, [layer], resolve=references).section("sample").dsn
        return found.reveal()

    url = urlsplit(dsn("postgres://u:${env:X}@h:5/db"))
    assert (unquote(url.password or ""), url.hostname, url.port, url.path) == (secret, "h", 5, "/db")
    if "\x00" not in secret:
        for text in ("host=h password=${env:X} user=u", "host=h password='${env:X}' user=u"):
            assert conninfo_to_dict(dsn(text)) == {"host": "h", "user": "u", "password": secret}


def test_what_a_reference_led_to_is_not_followed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VAULT, "loop", ["${vault:app} vault:app"])
    assert node.dsn("vault:loop") == "${vault:app} vault:app"
    assert node.dsn("x-${vault:loop}") == "x-${vault:app} vault:app"


# ---------------------------------------------------------------- refused


def test_every_failing_reference_is_a_problem_among_all_others(node: Node) -> None:
    (node.credentials / "binary").write_bytes(b"\xff\x00")
    (node.folder / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    os.mkfifo(node.folder / "pipe")
    (node.folder / "closed").mkdir()
    found = node.problems(
        {
            "dsn": "postgres://u:${vault:nobody}@${vault:app@9}/",
            "name": 5,
            "keys": [
                "vault:empty",
                "env:ABSENT",
                "env:NOTHING",
                "cred:absent",
                "cred:binary",
                "file:large",
                "file:pipe",
                "file:closed",
            ],
        }
    )
    assert found == sorted(
        [
            'sample.dsn: vault:nobody cannot be followed: the vault holds no secret "nobody" (mag.toml line 3)',
            'sample.dsn: vault:app@9 cannot be followed: the vault holds no secret "app" in version 9 '
            "(mag.toml line 3)",
            "sample.name = 5: expected text (mag.toml line 3)",
            "sample.keys[0]: vault:empty cannot be followed: there is nothing in it (mag.toml line 3)",
            "sample.keys[1]: env:ABSENT cannot be followed: this variable is not set (mag.toml line 3)",
            "sample.keys[2]: env:NOTHING cannot be followed: there is nothing in it (mag.toml line 3)",
            "sample.keys[3]: cred:absent cannot be followed: the file cannot be read (No such file or directory) "
            "(mag.toml line 3)",
            "sample.keys[4]: cred:binary cannot be followed: the file cannot be read (it is not UTF-8 text) "
            "(mag.toml line 3)",
            "sample.keys[5]: file:large cannot be followed: the file cannot be read (No such file or directory) "
            "(mag.toml line 3)",
            "sample.keys[6]: file:pipe cannot be followed: the file cannot be read (No such file or directory) "
            "(mag.toml line 3)",
            "sample.keys[7]: file:closed cannot be followed: the file cannot be read (No such file or directory) "
            "(mag.toml line 3)",
        ]
    )
    with pytest.raises(ConfigError) as caught:
        node.load({"keys": ["file:large", "file:pipe", "file:closed"]})
    assert [problem.partition("followed: ")[2].partition(" (/")[0] for problem in caught.value.problems] == [
        f"the file cannot be read (it is larger than {MAX_FILE_BYTES} bytes)",
        "the file cannot be read (it is not a file)",
        "the file cannot be read (it is not a file)",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "vault:hunter two",
        "vault:Hunter2-secret",
        "vault:hunter2@0",
        "vault:hunter2@-1",
        "env:hunter2-a",
        "cred:../hunter2",
        "cred:hunter2/x",
        "file:",
        "file:hunter2\n",
        "vault:",
        "x${vault:hunter 2}",
        "x${vault:hunter2",
        "${env:hunter-2} and ${vault:hunter2",
    ],
)
def test_what_only_begins_like_a_reference_is_refused_and_not_shown(node: Node, text: str) -> None:
    for problem in node.problems({"dsn": text}):
        assert "hunter" not in problem
        assert "plain:" in problem
    assert node.references.reads == []
    assert node.dsn(f"plain:{text}") == text


def test_the_vault_does_not_keep_what_opens_it(node: Node) -> None:
    def vault(token: str) -> Config:
        return load_config(SECTIONS, [Layer("x", "x", {"vault": {"token": token}})], resolve=node.references)

    with pytest.raises(ConfigError, match=r"vault\.token: vault:app cannot be followed: the vault cannot keep"):
        vault("vault:app")
    assert vault("env:APP_TOKEN").section("vault").token == Secret("from environment")


def test_without_a_vault_or_credentials_the_reason_is_said(tmp_path: Path) -> None:
    references = References(environ={}, credentials_dir=None, base_dir=tmp_path)
    layer = Layer("x", "x", {"sample": {"keys": ["vault:app", "cred:x"]}})
    with pytest.raises(ConfigError) as caught:
        load_config(SECTIONS, [layer], resolve=references)
    assert caught.value.problems == [
        "sample.keys[0]: vault:app cannot be followed: there is no vault here (x)",
        "sample.keys[1]: cred:x cannot be followed: $CREDENTIALS_DIRECTORY is not set, so there are no credentials (x)",
    ]


def test_a_vault_that_is_not_available_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    def fails(name: str, version: int | None) -> tuple[str, int]:
        raise VaultUnavailable("sealed")

    references = References(environ={}, credentials_dir=None, base_dir=tmp_path, read_vault=fails)
    with pytest.raises(VaultUnavailable):
        load_config(SECTIONS, [Layer("x", "x", {"sample": {"dsn": "vault:app"}})], resolve=references)


def test_without_a_resolver_a_text_is_what_it_is() -> None:
    config = load_config(SECTIONS, [Layer("x", "x", {"sample": {"dsn": "vault:app"}})])
    assert config.section("sample").dsn == Secret("vault:app")
    assert config.reference("sample.dsn") == ""


# ---------------------------------------------------------------- layers of secrets


@pytest.mark.parametrize(
    ("mode", "is_taken"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False), (0o620, False)]
)
def test_a_file_of_secrets_is_for_its_owner_alone(tmp_path: Path, mode: int, is_taken: bool) -> None:
    path = tmp_path / "production.toml"
    path.write_text('[sample]\ndsn = "hunter2"\n')
    path.chmod(mode)
    if is_taken:
        layer = parsed_layer(file_content(path, is_secret=True), path, "secrets", "secrets")
        assert (layer.kind, layer.origins) == ("secrets", {"sample.dsn": f"{path} line 2"})
        return
    with pytest.raises(SecretsFileExposed, match=f"has mode {mode:04o}") as caught:
        file_content(path, is_secret=True)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_credentials_set_the_settings_they_are_named_after(tmp_path: Path) -> None:
    for name, text in {
        "magmobo.sample.dsn": "postgres://h\n",
        "magmobo.sample.name": "5",
        "magmobo.vault.token": "t",
        "magmobo-other": "x",
        "db": "x",
    }.items():
        (tmp_path / name).write_text(text)
    layer = credentials_layer(tmp_path)
    config = load_config(SECTIONS, [layer])
    assert config.section("sample") == Sample(dsn=Secret("postgres://h"), name="5")
    assert config.section("vault").token == Secret("t")
    assert (config.origin("sample.dsn"), config.layer("sample.dsn")) == (
        "credential magmobo.sample.dsn",
        "credentials",
    )
    assert (config.origin("sample.apps"), config.layer("sample.apps")) == ("default", "default")


def test_all_that_is_wrong_with_credentials_is_named(tmp_path: Path) -> None:
    (tmp_path / "magmobo.sample").write_text("hunter2")
    (tmp_path / "magmobo.sample..dsn").write_text("hunter2")
    (tmp_path / "magmobo.sample.dsn").write_bytes(b"hunter2\xff")
    (tmp_path / "magmobo.sample.tokens").write_text("hunter2")
    (tmp_path / "magmobo.sample.tokens.a").write_text("hunter2")
    (tmp_path / "magmobo.sample.name").mkdir()
    with pytest.raises(ConfigFileError) as caught:
        credentials_layer(tmp_path)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "credential magmobo.sample",
        "credential magmobo.sample..dsn",
        "credential magmobo.sample.dsn",
        "credential magmobo.sample.name",
        "credential magmobo.sample.tokens.a",
    ]
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigFileError, match=r"credentials in .* cannot be read"):
        credentials_layer(tmp_path / "absent")


def test_a_failed_reference_survives_pickling() -> None:
    error = ReferenceFailed("vault:x", "gone")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "vault:x cannot be followed: gone"
