"""What the node makes up for itself at its first start: the admin token, the first realtime app, a demo's signing key.

Invariant: the admin token is stored as its sha256 only and shown once, by the start that made it. Nothing is stored
before that start has succeeded, so that a token nobody has seen is never the valid one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from magmobo.admin.data_folder import DataFolder, write_atomically
from magmobo.admin.errors import data_folder_error
from magmobo.contracts.errors import ConfigError
from magmobo.kernel.config.layers import Layer, toml_layer

_TOKEN_BYTES = 32

_FILE = """\
# Made by MagMoBo at the first start. Settings of your own (mag.toml, environment, command line) win over these.
# Without the table [admin] the next start makes and shows a new admin token.

[admin]
token_sha256 = "{token_sha256}"

[[magws.apps]]
id = "{app[id]}"
key = "{app[key]}"
secret = "{app[secret]}"

[demo]
jwt_secret = "{jwt_secret}"
"""


class GeneratedSecrets:
    """Read from `folder.secrets_file`; whatever is missing there is made now and stored by `keep`."""

    def __init__(self, folder: DataFolder) -> None:
        """Raises: ConfigError when the file is there but is not what we wrote."""
        self._folder = folder
        known = toml_layer(folder.secrets_file, "generated").values if folder.secrets_file.exists() else {}
        self.new_admin_token: str | None = None
        try:
            self._token_sha256 = str(known["admin"]["token_sha256"]) if "admin" in known else self._new_token()
            self._app = _app_of(known) if "magws" in known else _new_app()
            self._jwt_secret = str(known["demo"]["jwt_secret"]) if "demo" in known else secrets.token_urlsafe(48)
        except (KeyError, IndexError, TypeError) as error:
            raise ConfigError(
                [f"{folder.secrets_file}: is not as MagMoBo wrote it; restore it or remove it"]
            ) from error
        self._stored = known.keys() >= {"admin", "magws", "demo"}

    def layer(self, *, demo: bool) -> Layer:
        """As settings: `admin.token_sha256`, `magws.apps`; for a demo also the key that signs and checks its tokens."""
        values: dict[str, Any] = {"admin": {"token_sha256": self._token_sha256}, "magws": {"apps": [self._app]}}
        if demo:
            values |= {"demo": {"jwt_secret": self._jwt_secret}, "maggate": {"jwt": {"secret": self._jwt_secret}}}
        return Layer("generated", str(self._folder.secrets_file), values, kind="generated")

    def keep(self) -> None:
        """Store what is new, atomically, mode 0600. Raises: DataFolderError and its kinds."""
        if self._stored:
            return
        text = _FILE.format(token_sha256=self._token_sha256, app=self._app, jwt_secret=self._jwt_secret)
        try:
            write_atomically(self._folder.secrets_file, text)
        except OSError as error:
            raise data_folder_error(self._folder.path, error) from error
        self._stored = True

    def _new_token(self) -> str:
        self.new_admin_token = secrets.token_urlsafe(_TOKEN_BYTES)
        return sha256(self.new_admin_token.encode()).hexdigest()


def _new_app() -> dict[str, str]:
    return {
        "id": str(secrets.randbelow(900_000) + 100_000),
        "key": secrets.token_hex(10),
        "secret": secrets.token_hex(20),
    }


def _app_of(known: Mapping[str, Any]) -> dict[str, str]:
    app = known["magws"]["apps"][0]
    return {name: str(app[name]) for name in ("id", "key", "secret")}
