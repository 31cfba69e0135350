"""The replication connection: bytes of the walsender in, standby status out. No rule of history belongs here.

The caller takes messages with `receive` until it gives None, then awaits `wait`. The socket is read only when nothing
is left to take, so a slow reader slows the walsender, and memory stays bounded.
Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from msgspec import Struct
from psycopg import AsyncConnection, pq
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row

from magmobo.components.magds.changes.errors import DecodeError, StreamBroken
from magmobo.components.magds.changes.positions import lsn_from_text, lsn_text

_XLOG_DATA, _KEEPALIVE = ord("w"), ord("k")
_KEEPALIVE_BODY = struct.Struct("!QqB")
_STATUS = struct.Struct("!cQQQqB")
_SETTINGS = (
    "SET DateStyle TO 'ISO, YMD'; SET IntervalStyle TO postgres; SET TimeZone TO 'UTC'; SET bytea_output TO hex; "
    "SET extra_float_digits TO 1; SET client_encoding TO UTF8; SET statement_timeout TO 0; SET lc_monetary TO 'C'; "
    # While a large transaction of no interest to us is decoded, the walsender speaks every half of this.
    "SET wal_sender_timeout TO '60s'"
)


class Keepalive(Struct, frozen=True, gc=False):
    """The walsender has looked at everything before `lsn`."""

    lsn: int
    reply_requested: bool


class SystemIdentity(Struct, frozen=True):
    """Answer of IDENTIFY_SYSTEM; `flushed_lsn` is the durable end of the log."""

    system_identifier: str
    timeline: int
    flushed_lsn: int


class ReplicationStream:
    """One walsender connection. Make it with `connect`; `close` it in any case."""

    def __init__(self, connection: AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection, self._pgconn = connection, connection.pgconn
        self._readable = asyncio.Event()
        self._watched = -1
        # libpq may leave up to one TLS record of 16 KB decrypted inside the TLS library, where the socket does not show
        # it, and takes at least 8 KB at a time.
        self._read_attempts = 3 if self._pgconn.ssl_in_use else 1

    @classmethod
    async def connect(cls, conninfo: str, *, timeout_s: int = 10) -> ReplicationStream:
        """Open a walsender with the session settings that `json_values` expects. Raises: psycopg.OperationalError."""
        info = make_conninfo(
            conninfo, replication="database", application_name="magmobo changes", connect_timeout=timeout_s
        )
        connection = await AsyncConnection.connect(info, autocommit=True, row_factory=tuple_row)
        for setting in _SETTINGS.split("; "):
            await connection.execute(setting.encode())
        return cls(connection)

    async def identify(self) -> SystemIdentity:
        """Which cluster, timeline and log position this is. Raises: psycopg.OperationalError."""
        row = await (await self._connection.execute("IDENTIFY_SYSTEM")).fetchone()
        if row is None:
            raise StreamBroken("no answer to IDENTIFY_SYSTEM")
        return SystemIdentity(str(row[0]), int(row[1]), lsn_from_text(str(row[2])))

    async def start(self, slot: str, publications: tuple[str, ...], lsn: int) -> None:
        """Begin to stream what was committed at or after `lsn`. Raises: psycopg.Error."""
        names = ",".join(f'"{name}"' for name in publications)
        command = (
            f'START_REPLICATION SLOT "{slot}" LOGICAL {lsn_text(lsn)} '
            f"(proto_version '1', publication_names '{names}', messages 'true')"
        )
        await self._connection.execute(command.encode())
        self._watched = self._pgconn.socket
        asyncio.get_running_loop().add_reader(self._watched, self._readable.set)

    def receive(self) -> bytes | Keepalive | None:
        """The next message that has arrived: the bytes of a pgoutput message, a keepalive, or None.

        Raises: StreamBroken when the walsender ended the stream, DecodeError, psycopg.OperationalError.
        """
        size_bytes, data = self._pgconn.get_copy_data(1)
        for _ in range(self._read_attempts):
            if size_bytes:
                break
            self._pgconn.consume_input()
            size_bytes, data = self._pgconn.get_copy_data(1)
        if size_bytes == 0:
            return None
        if size_bytes < 0:
            raise self._why_ended()
        if data[0] == _XLOG_DATA:
            return bytes(data[25:])
        if data[0] != _KEEPALIVE or size_bytes != 1 + _KEEPALIVE_BODY.size:
            raise DecodeError(f"unknown frame {bytes(data[:1])!r} of {size_bytes} bytes")
        lsn, _time_us, reply = _KEEPALIVE_BODY.unpack_from(data, 1)
        return Keepalive(lsn, reply == 1)

    async def wait(self, timeout_s: float) -> bool:
        """Wait until the socket has something, at most `timeout_s`. False when nothing came."""
        self._readable.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._readable.wait()
        except TimeoutError:
            return False
        return True

    def send_status(self, written_lsn: int, confirmed_lsn: int, time_s: float, *, ask_reply: bool) -> None:
        """Tell the walsender how far we are; from `confirmed_lsn` on it must be able to send again.

        Raises: psycopg.OperationalError.
        """
        time_us = int((time_s - 946_684_800) * 1_000_000)
        self._pgconn.put_copy_data(
            _STATUS.pack(b"r", written_lsn, confirmed_lsn, confirmed_lsn, time_us, 1 if ask_reply else 0)
        )
        self._pgconn.flush()

    async def close(self) -> None:
        """End the connection; safe to call twice."""
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = -1
        await self._connection.close()

    def _why_ended(self) -> StreamBroken:
        result = self._pgconn.get_result()
        if result is None:
            return StreamBroken("the server ended the stream")
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
        return StreamBroken(result.get_error_message() or "the server ended the stream", (state or b"").decode())
