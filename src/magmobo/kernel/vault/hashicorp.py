"""Secrets on a HashiCorp Vault or OpenBao server, in a KV engine of version 2. The extra `vault` brings the library.

A secret is the field `value` of `<mount>/<path>/<name>`. Versions, and how many of them are kept, are the server's:
what somebody writes or deletes there counts here at the next read. A secret whose newest version is deleted is not
there. Boundary: implements `driver.VaultDriver` and keeps nothing itself; `hashicorp_http` sends and receives.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from magmobo.contracts.errors import MagError, SecretUnknown, VaultUnavailable
from magmobo.contracts.planes import SecretInfo
from magmobo.contracts.secret import Secret
from magmobo.kernel.vault.errors import RekeyRefused
from magmobo.kernel.vault.hashicorp_errors import (
    NotTheNewest,
    NotThere,
    VaultExtraMissing,
    VaultServerBusy,
    VaultServerMisfit,
    VaultServerSettings,
    VaultWriteUnfinished,
)
from magmobo.kernel.vault.names import NAME, check_secret

if TYPE_CHECKING:
    from magmobo.kernel.vault.driver import Mark, VaultSettings
    from magmobo.kernel.vault.hashicorp_http import KvEngine, Metadata

_PLACE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_TOKEN = re.compile(r"[!-~]{1,4096}")
_NO_MOUNT = "the server has nothing mounted at vault.mount"
_MAX_NAMES = 2_000
_TRIES = 5


class HashiCorpVault:
    """Implements `driver.VaultDriver`. Nothing is asked, and the library not loaded, before the first call."""

    name = "hashicorp"

    def __init__(self, settings: VaultSettings) -> None:
        self._settings = settings
        self._engine: KvEngine | None = None
        self._turn = threading.Lock()

    @property
    def key_source(self) -> str:
        return "the server's own; reached with the token of vault.token"

    def read(self, name: str, version: int | None = None) -> tuple[str, int]:
        if not NAME.fullmatch(name):
            raise SecretUnknown(name, version)
        try:
            return self._connected().read(name, version)
        except NotThere as answer:
            raise _unknown(answer, name, version) from None

    def write(self, secrets: Mapping[str, str], *, pinned: Mapping[str, Collection[int]]) -> Sequence[SecretInfo]:
        for name, text in secrets.items():
            check_secret(name, text)
        infos: list[SecretInfo] = []
        for name, text in secrets.items():
            try:
                infos.append(self._write(name, text))
            except VaultUnavailable as error:
                if not infos:
                    raise
                raise VaultWriteUnfinished(error.reason, [info.name for info in infos]) from error
        return infos

    def remove(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise SecretUnknown(name)
        engine = self._connected()
        try:
            engine.metadata(name)
        except NotThere as answer:
            raise _unknown(answer, name) from None
        engine.remove(name)

    def infos(self) -> Sequence[SecretInfo]:
        engine = self._connected()
        try:
            names = [name for name in engine.names() if NAME.fullmatch(name)]
        except NotThere as answer:
            if answer.told_why:
                raise VaultServerMisfit(_NO_MOUNT) from None
            return []
        if len(names) > _MAX_NAMES:
            raise VaultServerMisfit(f"the folder holds more than {_MAX_NAMES} secrets")
        infos: list[SecretInfo] = []
        for name in sorted(names):
            try:
                info = _info(name, engine.metadata(name))
            except NotThere:  # removed meanwhile
                continue
            if info is not None:
                infos.append(info)
        return infos

    def rekey(self, *, above_generation: int) -> None:
        raise RekeyRefused("a Vault server has a key of its own, which `vault operator rotate` changes")

    def reconfigure(self, settings: VaultSettings) -> None:
        engine = _connect(settings)
        with self._turn:
            former, self._engine, self._settings = self._engine, engine, settings
        if former is not None:
            former.close()

    def mark(self) -> Mark | None:
        return None

    def close(self) -> None:
        with self._turn:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _connected(self) -> KvEngine:
        with self._turn:
            if self._engine is None:
                self._engine = _connect(self._settings)
            return self._engine

    def _write(self, name: str, text: str) -> SecretInfo:
        engine = self._connected()
        for _ in range(_TRIES):
            before = _metadata(engine, name)
            try:
                version = engine.write(name, text, after_version=before.current_version if before else 0)
            except NotTheNewest:
                continue
            except NotThere as answer:
                raise _unknown(answer, name) from None
            return _info_after(engine, name, version)
        raise VaultServerBusy(f'others write "{name}" at the same time')


def _metadata(engine: KvEngine, name: str) -> Metadata | None:
    try:
        return engine.metadata(name)
    except NotThere as answer:
        if answer.told_why:
            raise VaultServerMisfit(_NO_MOUNT) from None
        return None


def _info_after(engine: KvEngine, name: str, version: int) -> SecretInfo:
    """What is known of a secret that was just stored; that it cannot be asked for any more takes nothing back."""
    try:
        info = _info(name, engine.metadata(name))
    except (VaultUnavailable, NotThere):
        info = None
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return info or SecretInfo(name, version, (version,), now, now)


def _info(name: str, metadata: Metadata) -> SecretInfo | None:
    """What the vault says of a secret; None when the version that would count is deleted."""
    kept = sorted(
        number for number, version in metadata.versions.items() if not version.destroyed and not version.deletion_time
    )
    if metadata.current_version not in kept:
        return None
    newest = metadata.versions[metadata.current_version]
    return SecretInfo(
        name, metadata.current_version, tuple(kept), _utc(metadata.created_time), _utc(newest.created_time)
    )


def _utc(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise VaultServerMisfit("the server's answer holds a time that is none") from None
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unknown(answer: NotThere, name: str, version: int | None = None) -> MagError:
    return VaultServerMisfit(_NO_MOUNT) if answer.told_why else SecretUnknown(name, version)


# ---------------------------------------------------------------- settings


def _connect(settings: VaultSettings) -> KvEngine:
    """Raises: VaultServerSettings, VaultExtraMissing."""
    address, token = _address(settings.address), _token(settings.token)
    for key, value in (("mount", settings.mount), ("path", settings.path)):
        if not _PLACE.fullmatch(value) and not (key == "path" and value == ""):
            raise VaultServerSettings(f"vault.{key} is not a path such as team/app")
    ca_path = settings.ca_path
    if ca_path is not None and not ca_path.is_file():
        raise VaultServerSettings(f"vault.ca_path: {ca_path} is not a file")
    try:
        from magmobo.kernel.vault.hashicorp_http import KvEngine
    except ImportError:
        raise VaultExtraMissing("the package `hvac` is not installed") from None
    trust = True if ca_path is None else str(ca_path)
    return KvEngine(address, token, settings.mount, settings.path, settings.timeout_s, trust)


def _address(text: str) -> str:
    """The URL of the server. A name and password in it would be sent nowhere and shown everywhere."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in ("http", "https") or "@" in text or parts.query or parts.fragment:
        raise VaultServerSettings("vault.address is not an address such as https://vault.example.com:8200")
    if parts.scheme == "http" and not _is_loopback(host):
        raise VaultServerSettings("vault.address is http:// to another machine: the token needs https://")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(secret: Secret | None) -> Secret:
    text = "" if secret is None else secret.reveal().strip()
    if not text:
        raise VaultServerSettings("vault.token is not set")
    if not _TOKEN.fullmatch(text):
        raise VaultServerSettings("vault.token holds characters that no token has")
    return Secret(text)
