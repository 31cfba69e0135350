"""Statements over an encrypted connection: what comes in records larger than what libpq reads at once is all there."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg.conninfo import conninfo_to_dict

from magmobo.extensions.sql import execution
from magmobo.extensions.sql.errors import ResultTooLarge
from magmobo.extensions.sql.values import parameters

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def certified(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate of its own making."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    certificate = made.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "both.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


@asynccontextmanager
async def encrypting(dsn: str, context: ssl.SSLContext) -> AsyncIterator[str]:
    """The same database behind something that encrypts for it: our Postgres is built without. Yields its DSN."""
    known = conninfo_to_dict(dsn)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == SSL_REQUEST
        writer.write(b"S")
        await writer.start_tls(context)
        theirs, ours = await asyncio.open_unix_connection(f"{known['host']}/.s.PGSQL.{known['port']}")
        await asyncio.gather(forward(reader, ours), forward(theirs, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"host=127.0.0.1 port={port} sslmode=require user={known['user']} dbname={known['dbname']}"
    finally:
        server.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one end is gone."""
    with suppress(OSError):
        while data := await reader.read(200_000):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Closed at the end, whatever was left of a statement."""
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    try:
        yield connection
    finally:
        await connection.close()


async def test_answers_of_any_size_are_whole(dsn: str, tmp_path: Path) -> None:
    async with (
        asyncio.timeout(60),
        encrypting(dsn, certified(tmp_path)) as encrypted,
        connected(encrypted) as connection,
    ):
        assert connection.pgconn.ssl_in_use
        for size in (0, 1, 8_000, 8_192, 16_384, 16_385, 24_000, 32_768, 33_000, 65_536, 70_000, 200_000, 500_000):
            answer = await execution.run(connection, "select repeat('x', $1::int) as a, 1 as b", parameters([size]))
            assert answer.rows == [{"a": "x" * size, "b": 1}]
        for count in (1, 100, 1_000, 9_999):
            answer = await execution.run(connection, "select * from generate_series(1, $1::int) i", parameters([count]))
            assert [row["i"] for row in answer.rows] == list(range(1, count + 1))
        given = "y" * 900_000  # what is sent is encrypted too, and larger than a socket takes
        assert (await execution.run(connection, "select length($1) as n", parameters([given]))).rows == [{"n": 900_000}]


async def test_what_is_too_large_is_refused_there_too(dsn: str, tmp_path: Path) -> None:
    async with (
        asyncio.timeout(60),
        encrypting(dsn, certified(tmp_path)) as encrypted,
        connected(encrypted) as connection,
    ):
        with pytest.raises(ResultTooLarge):
            await execution.run(connection, "select repeat('x', 30000000)", parameters([]))
