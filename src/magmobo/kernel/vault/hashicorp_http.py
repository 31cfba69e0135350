"""Calls of the KV engine, version 2, of a HashiCorp Vault or OpenBao server, through `hvac`.

Boundary: the one module that loads `hvac`; it knows paths and answers, not what the driver makes of them.
Invariant: the token goes to the configured address alone. Redirects are not followed, proxies, `.netrc` and variables
such as VAULT_TOKEN are not looked at, and no text of the server or of a library gets into an error. An answer is
bounded in size and in time, but for a server that feeds us its headers byte by byte.
Source: https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import hvac
import msgspec
import requests
from hvac.adapters import Adapter
from msgspec import Struct
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as SocketTimeout

from magmobo.contracts.errors import VaultUnavailable
from magmobo.contracts.secret import Secret
from magmobo.kernel.vault.hashicorp_errors import (
    NotTheNewest,
    NotThere,
    VaultServerBusy,
    VaultServerDenied,
    VaultServerMisfit,
    VaultServerSealed,
    VaultServerUnreachable,
    VaultServerUntrusted,
)

_MAX_ANSWER_BYTES = 4_194_304
_FIELD = "value"

T = TypeVar("T")


class Version(Struct, frozen=True):
    """What the server says of one version of a secret."""

    created_time: str
    deletion_time: str = ""
    destroyed: bool = False


class Metadata(Struct, frozen=True):
    """What the server says of a secret without giving it."""

    created_time: str
    current_version: int
    versions: Mapping[int, Version]


class _Number(Struct, frozen=True):
    version: int


class _Content(Struct, frozen=True):
    data: Mapping[str, Any]
    metadata: _Number


class _Names(Struct, frozen=True):
    keys: Sequence[str]


class _Mount(Struct, frozen=True):
    type: str = ""
    options: Mapping[str, str] | None = None


class KvEngine:
    """The secrets below one folder of one mount."""

    def __init__(
        self, address: str, token: Secret, mount: str, folder: str, timeout_s: float, trust: str | bool
    ) -> None:
        session = requests.Session()
        session.trust_env = False
        session.verify = trust  # hvac prefers it to its own argument
        session.headers["Accept-Encoding"] = "identity"  # what is compressed has no size
        self._client: Any = hvac.Client(
            url=address, token=token.reveal(), cert="", timeout=timeout_s, session=session, adapter=_Bounded
        )
        self._mount, self._folder = mount, folder
        self._is_checked = False

    def read(self, name: str, version: int | None) -> tuple[str, int]:
        """A secret and its version. Raises: NotThere, VaultUnavailable."""
        self._check_mount()
        answer = self._kv().read_secret_version(
            self._at(name), version=version, mount_point=self._mount, raise_on_deleted_version=True
        )
        content = _data(answer, _Content)
        text = content.data.get(_FIELD)
        if not isinstance(text, str):
            raise VaultServerMisfit(f'the secret "{name}" on the server has no text in its field "{_FIELD}"')
        return text, content.metadata.version

    def metadata(self, name: str) -> Metadata:
        """What is known of a secret. Raises: NotThere, VaultUnavailable."""
        self._check_mount()
        return _data(self._kv().read_secret_metadata(self._at(name), mount_point=self._mount), Metadata)

    def write(self, name: str, text: str, *, after_version: int) -> int:
        """Store a version that follows this one (0: none) and give its number. Raises: NotTheNewest."""
        answer = self._kv().create_or_update_secret(
            self._at(name), {_FIELD: text}, cas=after_version, mount_point=self._mount
        )
        return _data(answer, _Number).version

    def remove(self, name: str) -> None:
        """Forget a secret and its versions, whether it is there or not."""
        self._kv().delete_metadata_and_all_versions(self._at(name), mount_point=self._mount)

    def names(self) -> Sequence[str]:
        """What stands in the folder; what ends in `/` is a folder itself. Raises: NotThere."""
        self._check_mount()
        return _data(self._kv().list_secrets(self._folder, mount_point=self._mount), _Names).keys

    def close(self) -> None:
        """Let go of the connections."""
        self._client.adapter.close()

    def _kv(self) -> Any:
        return self._client.secrets.kv.v2

    def _at(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    def _check_mount(self) -> None:
        """A KV engine of version 1 takes the calls of version 2 too, and stores something else. Once is enough."""
        if self._is_checked:
            return
        try:
            mount = _data(self._client.adapter.get(f"/v1/sys/internal/ui/mounts/{self._mount}"), _Mount)
        except (NotThere, VaultServerDenied):
            return  # the call itself says what is missing
        if mount.type != "kv" or (mount.options or {}).get("version") != "2":
            raise VaultServerMisfit(f'"{self._mount}" on the server is not a KV engine of version 2')
        self._is_checked = True


class _Bounded(Adapter):  # type: ignore[misc]  # hvac has no types
    """How hvac sends: bounded, without redirects, and with errors of ours."""

    def get_login_token(self, response: Any) -> str:
        """Part of the base class; nobody logs in here."""
        raise NotImplementedError

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,
        **options: Any,
    ) -> Any:
        """The JSON of an answer, None of an empty one. Raises: NotThere, NotTheNewest, VaultUnavailable."""
        if method == "list":  # proxies know no method LIST
            method, options = "get", {**options, "params": {"list": "true"}}
        deadline_s = time.monotonic() + self._kwargs["timeout"]
        try:
            with self.session.request(
                method,
                self.urljoin(self.base_uri, url),
                headers={"X-Vault-Request": "true", "X-Vault-Token": self.token},
                allow_redirects=False,
                stream=True,
                **{**self._kwargs, **options},
            ) as response:
                body = _body(response, deadline_s)
                status = response.status_code
        except (requests.RequestException, HTTPError, OSError) as error:
            raise _not_reached(error) from None
        if status not in (200, 204):
            raise _refusal(status, body)
        return _json(body) if body else None


def _body(response: Any, deadline_s: float) -> bytes:
    body = bytearray()
    while chunk := response.raw.read1(65_536, decode_content=False):
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise VaultServerMisfit(f"the server's answer is longer than {_MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline_s:
            raise VaultServerUnreachable("the server did not finish its answer in time")
    return bytes(body)


def _not_reached(error: Exception) -> VaultUnavailable:
    """Why there is no answer; the error of the library holds the request, and with it the token."""
    if isinstance(error, requests.exceptions.SSLError):
        return VaultServerUntrusted("the server's certificate is not trusted, or it does not speak TLS")
    if isinstance(error, requests.exceptions.Timeout | SocketTimeout):
        return VaultServerUnreachable("the server did not answer in time")
    if isinstance(error, requests.exceptions.ConnectionError):
        return VaultServerUnreachable("the server cannot be reached")
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return VaultServerUntrusted("the file that vault.ca_path names cannot be read")
    return VaultServerUnreachable(f"the server did not answer as it should ({type(error).__name__})")


def _refusal(status: int, body: bytes) -> Exception:
    match status:
        case 400 if b"check-and-set" in body:
            return NotTheNewest()
        case 404:
            return NotThere(told_why=bool(_errors(body)))
        case 401 | 403:
            return VaultServerDenied("the server denies it to this token, or does not know the token")
        case 429:
            return VaultServerBusy("the server asks us to slow down")
        case 501 | 503 | 472 | 473:
            return VaultServerSealed("the server is sealed, not initialised or not the active one")
        case _ if 300 <= status < 400:
            return VaultServerMisfit("the server sends us elsewhere, which a token must not follow")
        case _ if status >= 500:
            return VaultServerUnreachable(f"the server has trouble of its own (HTTP {status})")
    return VaultServerMisfit(f"the server does not take our request (HTTP {status})")


def _errors(body: bytes) -> object:
    try:
        return _json(body).get("errors")
    except (VaultServerMisfit, AttributeError):
        return "not even JSON"


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise VaultServerMisfit("the server's answer is not JSON") from None


def _data(answer: Any, shape: type[T]) -> T:
    try:
        return msgspec.convert(answer["data"], shape, strict=False)
    except (msgspec.ValidationError, KeyError, TypeError):
        raise VaultServerMisfit("the server's answer is not that of a KV engine of version 2") from None
