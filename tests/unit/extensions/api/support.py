"""Real servers on loopback addresses, a name server of the test's own, and an extension that may ask some hosts."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

from magmobo.extensions.api.http import HttpArgs, HttpMethods
from magmobo.extensions.installed import Caller, Grant, Installed
from magmobo.extensions.package.manifest import CapabilityRequest, Manifest

DEADLINE_S = 60.0


class Seen(Struct):
    """One request as a server got it."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]


Answer = bytes | Callable[[Seen], bytes] | Callable[[Seen, asyncio.StreamWriter], Any]


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return reply(status, location=location)


class Server:
    """Answers every request with `answer`; keeps what it saw, counts connections, and how many there were at once."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections = self.open = self.most = 0
        self.port = 0
        self.nobody = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        self.nobody.clear()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                seen = Seen(head[0], headers, body)
                self.seen.append(seen)
                answer = self.answer(seen, writer) if callable(self.answer) else self.answer
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self.nobody.set()


@asynccontextmanager
async def serving(
    answer: Any, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, host, port, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


class Names:
    """A name server: what each name means, in turn where it means several things; the last one stays."""

    def __init__(self, **names: Any) -> None:
        self.names: dict[str, Any] = {name.replace("_", "."): meaning for name, meaning in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        meaning = self.names.get(host)
        if meaning is None:
            raise OSError("no such name")
        if isinstance(meaning, list):
            meaning = meaning.pop(0) if len(meaning) > 1 else meaning[0]
        return [meaning] if isinstance(meaning, str) else meaning


class Denials:
    def __init__(self) -> None:
        self.noted: list[tuple[str, str, str, str]] = []

    def __call__(self, extension: Installed, capability: str, method: str, reason: str) -> None:
        self.noted.append((extension.id, capability, method, reason))


class World(Struct):
    """The methods under test and one extension that calls them."""

    http: HttpMethods
    extension: Installed
    denials: Denials
    names: Names

    async def ask(self, url: str, method: str = "GET", *, deadline_s: float = DEADLINE_S, **more: Any) -> Any:
        caller = Caller(self.extension, (), asyncio.get_running_loop().time() + deadline_s)
        async with asyncio.timeout(DEADLINE_S):
            return await self.http.request(caller, HttpArgs(method=method, url=url, **more))  # type: ignore[arg-type]

    def grant(self, *hosts: str) -> None:
        grant = Grant(capability="network.outbound", scope={"hosts": list(hosts)}, rate_per_minute=100)
        self.extension.grants = {"network.outbound": grant}


def installed(extension_id: str = "asker", **manifest: Any) -> Installed:
    made = Manifest(id=extension_id, name=extension_id, version="1.0.0", **manifest)
    return Installed(extension_id, "1.0.0", "0" * 64, made, Path("/nowhere"), "key")


@asynccontextmanager
async def asking(
    *hosts: str, names: Mapping[str, Any] | Names, networks: Sequence[str] = ("127.0.0.1/32",), **more: Any
) -> AsyncIterator[World]:
    book = names if isinstance(names, Names) else Names(**names)
    denials = Denials()
    http = HttpMethods(denied=denials, networks=networks, resolve=book, **more)
    request = CapabilityRequest(name="network.outbound", reason="to ask", hosts=hosts)
    world = World(http, installed(capabilities=[request]), denials, book)
    world.grant(*hosts)
    try:
        yield world
    finally:
        await http.close()


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.path = folder / "authority.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.path))

    def server(self, host: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._sign(name, key, x509.SubjectAlternativeName([x509.DNSName(host)]))
        pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{host}.pem"
        path.write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        return builder.add_extension(extension, critical=False).sign(self._key, hashes.SHA256())
