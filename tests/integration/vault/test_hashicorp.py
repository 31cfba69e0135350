"""The driver for Vault servers against a real one (OpenBao speaks the same API), and against ones that misbehave."""

from __future__ import annotations

import itertools
import json
import pickle
import socket
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vault.strange import StrangeServer, http, strange_server

from magmobo.contracts.errors import MagError, SecretUnknown, VaultUnavailable
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.vault.driver import MAX_SECRET_BYTES, VaultDriver
from magmobo.kernel.vault.errors import RekeyRefused, SecretRefused
from magmobo.kernel.vault.hashicorp import HashiCorpVault
from magmobo.kernel.vault.hashicorp_errors import (
    VaultExtraMissing,
    VaultServerBusy,
    VaultServerDenied,
    VaultServerMisfit,
    VaultServerSealed,
    VaultServerSettings,
    VaultServerUnreachable,
    VaultServerUntrusted,
    VaultWriteUnfinished,
)
from magmobo.kernel.vault.opening import open_vault
from magmobo.testing.openbao import VaultServer, running_vault

TOKEN = "hvs.the-token-nobody-may-see"
FOLDERS = itertools.count(1)


@pytest.fixture
def folder() -> str:
    """A folder on the server that this test has for itself."""
    return f"f{next(FOLDERS)}"


@pytest.fixture
def config(vault: VaultServer, folder: str) -> VaultConfig:
    """Settings with a token that may do no more than the driver needs."""
    return VaultConfig(driver="hashicorp", address=vault.url, token=Secret(vault.token(folder)), path=folder)


@pytest.fixture
def driver(config: VaultConfig) -> Iterator[HashiCorpVault]:
    with_settings = HashiCorpVault(config)
    yield with_settings
    with_settings.close()


def changed(config: VaultConfig, **settings: Any) -> VaultConfig:
    return VaultConfig(**{**{field: getattr(config, field) for field in config.__struct_fields__}, **settings})


def write(driver: VaultDriver, **secrets: str) -> None:
    driver.write(secrets, pinned={})


# ---------------------------------------------------------------- a real server


def test_it_is_a_driver(driver: HashiCorpVault) -> None:
    as_driver: VaultDriver = driver
    assert (as_driver.name, as_driver.mark()) == ("hashicorp", None)
    assert "vault.token" in as_driver.key_source


def test_it_is_what_a_node_opens(config: VaultConfig, tmp_path: Path) -> None:
    opened = open_vault(config, tmp_path)
    opened.write({"a": "x"}, pinned={})
    assert opened.read("a") == ("x", 1)
    assert (opened.name, opened.mark()) == ("hashicorp", None)
    opened.reconfigure(changed(config, timeout_s=1.0))
    assert [info.name for info in opened.infos()] == ["a"]
    opened.close()
    assert list(tmp_path.iterdir()) == []


def test_secrets_come_back_with_their_versions(driver: HashiCorpVault) -> None:
    for text in ("one", "two\n\0é🔑", "x" * MAX_SECRET_BYTES):
        write(driver, **{"db.main-1_x": text})
        assert driver.read("db.main-1_x")[0] == text
    assert driver.read("db.main-1_x")[1] == 3
    assert driver.read("db.main-1_x", 1) == ("one", 1)
    assert driver.read("db.main-1_x", 2) == ("two\n\0é🔑", 2)


def test_what_is_known_of_secrets(driver: HashiCorpVault, vault: VaultServer, folder: str) -> None:
    assert list(driver.infos()) == []
    written = driver.write({"b": "1", "a": "2"}, pinned={})
    assert [(info.name, info.version, list(info.versions)) for info in written] == [("b", 1, [1]), ("a", 1, [1])]
    [again] = driver.write({"b": "3"}, pinned={"b": (1,)})
    assert (again.version, list(again.versions)) == (2, [1, 2])
    assert again.created_at == written[0].created_at < again.changed_at
    assert again.created_at.endswith("Z")
    vault.ask("POST", f"secret/data/{folder}/NOT_OURS", {"data": {"value": "x"}})
    vault.ask("POST", f"secret/data/{folder}/below/c", {"data": {"value": "x"}})
    assert list(driver.infos()) == [written[1], again]


def test_unknown_secrets_and_versions(driver: HashiCorpVault) -> None:
    write(driver, a="x")
    for name, version in (("b", None), ("a", 2), ("a", 99), ("../a", None), ("a/../a", None), ("A", None), ("", None)):
        with pytest.raises(SecretUnknown):
            driver.read(name, version)
    for name in ("b", "../a", ""):
        with pytest.raises(SecretUnknown):
            driver.remove(name)


def test_a_removed_secret_is_gone_with_all_its_versions(driver: HashiCorpVault) -> None:
    write(driver, a="x")
    write(driver, a="y")
    driver.remove("a")
    assert list(driver.infos()) == []
    for version in (None, 1, 2):
        with pytest.raises(SecretUnknown):
            driver.read("a", version)
    with pytest.raises(SecretUnknown):
        driver.remove("a")
    write(driver, a="z")
    assert driver.read("a") == ("z", 1)


def test_versions_deleted_on_the_server_are_gone_here(driver: HashiCorpVault, vault: VaultServer, folder: str) -> None:
    for text in "xyz":
        write(driver, a=text)
    vault.ask("POST", f"secret/destroy/{folder}/a", {"versions": [1]})
    assert [list(info.versions) for info in driver.infos()] == [[2, 3]]
    vault.ask("DELETE", f"secret/data/{folder}/a")
    assert list(driver.infos()) == []
    for version in (None, 1, 3):
        with pytest.raises(SecretUnknown):
            driver.read("a", version)
    assert driver.read("a", 2) == ("y", 2)
    [info] = driver.write({"a": "new"}, pinned={})
    assert (info.version, list(info.versions)) == (4, [2, 4])


def test_a_server_that_asks_for_check_and_set_gets_it(driver: HashiCorpVault, vault: VaultServer, folder: str) -> None:
    vault.ask("POST", f"secret/metadata/{folder}/a", {"cas_required": True, "max_versions": 2})
    for text in "xyz":
        write(driver, a=text)
    assert driver.read("a") == ("z", 3)
    assert [list(info.versions) for info in driver.infos()] == [[2, 3]]


def test_several_writers_lose_nothing(driver: HashiCorpVault, config: VaultConfig) -> None:
    failures: list[MagError] = []

    def write_some(writer: int) -> None:
        for number in range(5):
            try:
                write(driver, a=f"{writer}.{number}")
            except VaultServerBusy as error:
                failures.append(error)

    threads = [threading.Thread(target=write_some, args=(writer,)) for writer in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = [driver.read("a", version)[0] for version in driver.infos()[0].versions]
    assert driver.read("a")[1] == 15 - len(failures)
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize(
    ("name", "text"),
    [("A", "x"), ("a/b", "x"), ("..", "x"), ("", "x"), ("a" * 101, "x"), ("a", ""), ("a", "x" * (MAX_SECRET_BYTES + 1)),
     ("a", "\ud800")],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_before_anything_is_stored(driver: HashiCorpVault, name: str, text: str) -> None:
    with pytest.raises(SecretRefused):
        driver.write({"first": "hunter2", name: text}, pinned={})
    assert list(driver.infos()) == []


def test_rekey_is_the_servers(driver: HashiCorpVault) -> None:
    with pytest.raises(RekeyRefused):
        driver.rekey(above_generation=1)


def test_a_token_without_the_right_is_denied(driver: HashiCorpVault, vault: VaultServer, folder: str) -> None:
    other = vault.token(f"{folder}other")
    config = VaultConfig(driver="hashicorp", address=vault.url, token=Secret(other), path=folder)
    for call in calls(HashiCorpVault(config)):
        with pytest.raises(VaultServerDenied) as refusal:
            call()
        assert other not in told(refusal.value)
        assert not refusal.value.retryable


def test_rights_to_read_are_enough_to_read(vault: VaultServer, driver: HashiCorpVault, folder: str) -> None:
    write(driver, a="hunter2")
    rules = 'path "secret/data/{folder}/*" {{ capabilities = ["read"] }}'
    token = vault.token(f"{folder}", rules=rules)
    reader = HashiCorpVault(VaultConfig(driver="hashicorp", address=vault.url, token=Secret(token), path=folder))
    assert reader.read("a") == ("hunter2", 1)
    for call in calls(reader)[1:]:
        with pytest.raises(VaultServerDenied):
            call()


def test_the_second_of_several_that_is_denied_says_which_are_stored(vault: VaultServer, folder: str) -> None:
    rules = """
path "secret/data/{folder}/b" {{ capabilities = ["deny"] }}
path "secret/data/{folder}/*" {{ capabilities = ["create", "read", "update"] }}
path "secret/metadata/{folder}/*" {{ capabilities = ["read"] }}"""
    token = vault.token(folder, rules=rules)
    driver = HashiCorpVault(VaultConfig(driver="hashicorp", address=vault.url, token=Secret(token), path=folder))
    with pytest.raises(VaultWriteUnfinished, match=r"stored before it failed: a, c$") as refusal:
        driver.write({"a": "hunter2", "c": "hunter2", "b": "hunter2", "d": "hunter2"}, pinned={})
    assert list(refusal.value.stored) == ["a", "c"]
    assert "hunter2" not in told(refusal.value)
    copy = pickle.loads(pickle.dumps(refusal.value))
    assert (str(copy), copy.stored) == (str(refusal.value), ["a", "c"])
    with pytest.raises(SecretUnknown):
        driver.read("d")


def test_a_sealed_server_says_so_and_serves_again(vault: VaultServer, driver: HashiCorpVault) -> None:
    write(driver, a="x")
    vault.seal()
    try:
        for call in calls(driver):
            with pytest.raises(VaultServerSealed) as refusal:
                call()
            assert refusal.value.retryable
    finally:
        vault.unseal()
    assert driver.read("a") == ("x", 1)


def test_a_server_that_is_gone_and_comes_back_elsewhere(folder: str) -> None:
    with running_vault() as server:
        config = VaultConfig(driver="hashicorp", address=server.url, token=Secret(server.root_token), path=folder)
        driver = HashiCorpVault(config)
        write(driver, a="x")
    for call in calls(driver):
        with pytest.raises(VaultServerUnreachable):
            call()
    with running_vault() as server:
        driver.reconfigure(changed(config, address=server.url, token=Secret(f"{server.root_token}\n")))
        write(driver, a="y")
        assert driver.read("a") == ("y", 1)
    driver.close()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"mount": "nothing"}, "nothing mounted"), ({"mount": "old"}, "not a KV engine of version 2"),
     ({"mount": "cubbyhole"}, "not a KV engine of version 2")],
)  # fmt: skip
def test_another_mount_is_named(vault: VaultServer, settings: dict[str, Any], reason: str) -> None:
    try:
        vault.ask("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
    except urllib.error.HTTPError as error:
        error.close()  # it is there from the test before
    config = VaultConfig(driver="hashicorp", address=vault.url, token=Secret(vault.root_token), **settings)
    for call in calls(HashiCorpVault(config)):
        with pytest.raises(VaultServerMisfit, match=reason):
            call()
    with pytest.raises(urllib.error.HTTPError) as nothing:
        vault.ask("GET", "old/data/magmobo/a")
    nothing.value.close()


def test_a_mount_and_a_folder_of_several_parts(vault: VaultServer) -> None:
    vault.ask("POST", "sys/mounts/team/kv", {"type": "kv", "options": {"version": "2"}})
    for path in ("", "a/b"):
        config = VaultConfig(driver="hashicorp", address=f"{vault.url}/", token=Secret(vault.root_token),
                             mount="team/kv", path=path)  # fmt: skip
        driver = HashiCorpVault(config)
        write(driver, x=f"in {path}")
        assert driver.read("x")[0] == f"in {path}"
        assert [info.name for info in driver.infos()] == ["x"]


def test_a_secret_of_somebody_else_has_no_value(driver: HashiCorpVault, vault: VaultServer, folder: str) -> None:
    for number, data in enumerate(({"password": "hunter2"}, {"value": 5}, {"value": {"hunter2": 1}}, {"value": None})):
        vault.ask("POST", f"secret/data/{folder}/s{number}", {"data": data})
        with pytest.raises(VaultServerMisfit, match=f'"s{number}" on the server has no text in its field') as refusal:
            driver.read(f"s{number}")
        assert "hunter2" not in told(refusal.value)


# ---------------------------------------------------------------- TLS


def test_a_certificate_of_the_named_authority_is_trusted_and_no_other(
    vault: VaultServer, config: VaultConfig, tmp_path: Path
) -> None:
    driver = HashiCorpVault(changed(config, address=vault.tls_url, ca_path=vault.ca_path))
    write(driver, a="x")
    assert driver.read("a") == ("x", 1)
    with running_vault() as other:
        for settings in ({"ca_path": None}, {"ca_path": other.ca_path}):
            stranger = HashiCorpVault(changed(config, address=vault.tls_url, **settings))
            for call in calls(stranger):
                with pytest.raises(VaultServerUntrusted):
                    call()


def test_a_name_the_certificate_is_not_made_for_is_not_trusted(vault: VaultServer, config: VaultConfig) -> None:
    address = vault.tls_url.replace("127.0.0.1", "localhost")
    with pytest.raises(VaultServerUntrusted):
        HashiCorpVault(changed(config, address=address, ca_path=vault.ca_path)).infos()


def test_what_does_not_speak_tls_gets_nothing(vault: VaultServer, config: VaultConfig) -> None:
    with strange_server(http("200 OK", b"{}")) as server:
        address = server.url.replace("http:", "https:")
        with pytest.raises(VaultServerUntrusted):
            HashiCorpVault(changed(config, address=address)).infos()
        assert all(b"X-Vault-Token" not in request for request in server.requests)


def test_a_file_of_authorities_that_is_none(vault: VaultServer, config: VaultConfig, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("hunter2")
    with pytest.raises(VaultServerUntrusted):
        HashiCorpVault(changed(config, address=vault.tls_url, ca_path=empty)).infos()
    with pytest.raises(VaultServerSettings, match="is not a file"):
        HashiCorpVault(changed(config, address=vault.tls_url, ca_path=tmp_path / "missing")).infos()


def test_the_environment_changes_nothing(
    vault: VaultServer, config: VaultConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login a password hunter2\n")
    for key, value in {
        "VAULT_TOKEN": "wrong", "VAULT_ADDR": "http://127.0.0.1:1", "VAULT_SKIP_VERIFY": "1",
        "NETRC": str(tmp_path / "netrc"),
        "HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1",
        "REQUESTS_CA_BUNDLE": str(vault.ca_path), "VAULT_NAMESPACE": "x",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    assert list(HashiCorpVault(config).infos()) == []
    with pytest.raises(VaultServerUntrusted):
        HashiCorpVault(changed(config, address=vault.tls_url)).infos()


# ---------------------------------------------------------------- servers that misbehave


def calls(driver: HashiCorpVault) -> list[Callable[[], object]]:
    return [
        lambda: driver.read("a"),
        lambda: driver.write({"a": "hunter2"}, pinned={}),
        lambda: driver.remove("a"),
        driver.infos,
    ]


def told(error: BaseException) -> str:
    """Everything that an error may show: itself, what it came from, and what they hold."""
    seen = [error, error.__cause__, None if error.__suppress_context__ else error.__context__]
    return " ".join(f"{one!r} {one} {vars(one)}" for one in seen if one is not None)


def against(server: StrangeServer, **settings: Any) -> HashiCorpVault:
    return HashiCorpVault(VaultConfig(driver="hashicorp", address=server.url, token=Secret(TOKEN), **settings))


ECHO = json.dumps({"errors": [f"{TOKEN} hunter2"]}).encode()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http("200 OK", b"not JSON"), VaultServerMisfit),
        (http("200 OK", b"[" * 100_000), VaultServerMisfit),
        (http("200 OK", b"[]"), VaultServerMisfit),
        (http("200 OK", b'{"data": []}'), VaultServerMisfit),
        (http("200 OK"), VaultServerMisfit),
        (http("204 No Content"), VaultServerMisfit),
        (http("200 OK", b"\x1f\x8b" + b"x" * 99, "Content-Encoding: gzip"), VaultServerMisfit),
        (http("200 OK", b" " * 5_000_000), VaultServerMisfit),
        (http("200 OK", b'{"data": {"type": "kv", "options": {"version": "2"}}}'), VaultServerMisfit),
        (http("307 Temporary Redirect", b"", "Location: http://127.0.0.1:1/v1/secret"), VaultServerMisfit),
        (http("301 Moved Permanently", b"", "Location: /v1/secret"), VaultServerMisfit),
        (http("400 Bad Request", ECHO), VaultServerMisfit),
        (http("401 Unauthorized", ECHO), VaultServerDenied),
        (http("403 Forbidden", ECHO), VaultServerDenied),
        (http("404 Not Found", ECHO), VaultServerMisfit),
        (http("404 Not Found", b"<html>"), VaultServerMisfit),
        (http("405 Method Not Allowed", ECHO), VaultServerMisfit),
        (http("429 Too Many Requests", ECHO), VaultServerBusy),
        (http("472 Standby", ECHO), VaultServerSealed),
        (http("500 Internal Server Error", ECHO), VaultServerUnreachable),
        (http("501 Not Initialised", ECHO), VaultServerSealed),
        (http("502 Bad Gateway", ECHO), VaultServerUnreachable),
        (http("503 Service Unavailable", ECHO), VaultServerSealed),
        (lambda connection, _: connection.sendall(b"SSH-2.0-hunter2\r\n"), VaultServerUnreachable),
        (lambda connection, _: None, VaultServerUnreachable),
        (lambda connection, _: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), VaultUnavailable),
    ],
)
def test_an_answer_that_is_none_is_an_error_without_words_of_the_server(
    answer: Callable[[socket.socket, threading.Event], None], kind: type[VaultUnavailable]
) -> None:
    with strange_server(answer) as server:
        for call in calls(against(server)):
            with pytest.raises(kind) as refusal:
                call()
            assert TOKEN not in told(refusal.value)
            assert "hunter2" not in told(refusal.value)
            assert refusal.value.__context__ is None or refusal.value.__suppress_context__
        assert all(TOKEN.encode() in request for request in server.requests)


def test_an_answer_without_end_is_given_up() -> None:
    with strange_server(http("200 OK", b" " * 5_000_000)) as server:
        with pytest.raises(VaultServerMisfit, match="longer than 4194304 bytes"):
            against(server).infos()
        assert b"Accept-Encoding: identity" in server.requests[0], "what is compressed has no size"


def test_the_mount_is_looked_at_once() -> None:
    with strange_server(http("200 OK", b'{"data": {"type": "kv", "options": {"version": "2"}}}')) as server:
        driver = against(server, mount="team/kv")
        for call in calls(driver):
            with pytest.raises(VaultServerMisfit):
                call()
        assert [b"/v1/sys/internal/ui/mounts/team/kv " in request for request in server.requests].count(True) == 1


def test_a_token_follows_no_redirect() -> None:
    with strange_server(http("200 OK", b"{}")) as other:
        with strange_server(http("307 Temporary Redirect", b"", f"Location: {other.url}/v1/x")) as server:
            for call in calls(against(server)):
                with pytest.raises(VaultServerMisfit, match="elsewhere"):
                    call()
        assert other.requests == []


def never(connection: socket.socket, ended: threading.Event) -> None:
    ended.wait(30)


def dripping(connection: socket.socket, ended: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(500):
        connection.sendall(b" ")
        if ended.wait(0.01):
            return


def dripping_chunks(connection: socket.socket, ended: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(500):
        connection.sendall(b"1\r\n \r\n")
        if ended.wait(0.01):
            return


@pytest.mark.parametrize("answer", [never, dripping, dripping_chunks])
def test_a_server_that_takes_its_time_is_given_up(
    answer: Callable[[socket.socket, threading.Event], None],
) -> None:
    with strange_server(answer) as server, pytest.raises(VaultServerUnreachable, match="in time"):
        against(server, timeout_s=0.2).read("a")


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"address": ""}, "vault.address"),
        ({"address": "vault.example.com:8200"}, "vault.address"),
        ({"address": "ftp://vault.example.com"}, "vault.address"),
        ({"address": "https://"}, "vault.address"),
        ({"address": "https://user:hunter2@vault.example.com"}, "vault.address"),
        ({"address": "https://vault.example.com/?x=hunter2"}, "vault.address"),
        ({"address": "https://vault.example.com:x"}, "vault.address"),
        ({"address": "https://[::1"}, "vault.address"),
        ({"address": "http://vault.example.com:8200"}, "needs https://"),
        ({"address": "http://10.0.0.1:8200"}, "needs https://"),
        ({"address": "http://127.0.0.1.example.com"}, "needs https://"),
        ({"token": None}, "vault.token"),
        ({"token": Secret(" \n")}, "vault.token"),
        ({"token": Secret("hunter2\r\nX: y")}, "vault.token"),
        ({"token": Secret("hunter2é")}, "vault.token"),
        ({"mount": "../sys"}, "vault.mount"),
        ({"mount": "secret?x"}, "vault.mount"),
        ({"path": "/a"}, "vault.path"),
        ({"path": "a//b"}, "vault.path"),
        ({"path": "a/../../sys"}, "vault.path"),
    ],
)
def test_settings_that_lead_nowhere_are_named_without_what_they_hold(settings: dict[str, Any], key: str) -> None:
    fine = VaultConfig(driver="hashicorp", address="http://127.0.0.1:1", token=Secret(TOKEN))
    config = changed(fine, **settings)
    driver = HashiCorpVault(fine)
    with pytest.raises(VaultServerSettings, match=key) as refusal:
        driver.reconfigure(config)  # which asks no server
    assert "hunter2" not in told(refusal.value)


@pytest.mark.parametrize(
    "address",
    ["http://localhost:1", "http://127.1.2.3:1", "http://[::1]:1", "https://vault.example.com", "https://10.0.0.1/v"],
)
def test_loopback_needs_no_tls(address: str) -> None:
    fine = VaultConfig(driver="hashicorp", address="http://127.0.0.1:1", token=Secret(TOKEN))
    HashiCorpVault(fine).reconfigure(changed(fine, address=address))  # which asks no server


def test_settings_are_looked_at_by_the_first_call() -> None:
    for call in calls(HashiCorpVault(VaultConfig(driver="hashicorp"))):
        with pytest.raises(VaultServerSettings):
            call()


def test_refused_settings_leave_the_former_ones(driver: HashiCorpVault, config: VaultConfig) -> None:
    write(driver, a="x")
    with pytest.raises(VaultServerSettings):
        driver.reconfigure(changed(config, token=None))
    assert driver.read("a") == ("x", 1)


def test_the_missing_package_is_named(config: VaultConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "magmobo.kernel.vault.hashicorp_http", raising=False)
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(VaultExtraMissing) as refusal:
        HashiCorpVault(config).infos()
    assert "pip install 'magmobo[vault]'" in refusal.value.next_step()
