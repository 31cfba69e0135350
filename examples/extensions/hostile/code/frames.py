"""Writes on its socket what is no frame of the protocol, or a frame that nobody asked for."""

import asyncio
import os
import stat
import struct
from typing import Any

from magx import Extension, wire

ext = Extension()


def framed(body: bytes) -> bytes:
    """The body with its length."""
    return struct.pack(">I", len(body)) + body


FAULTS = {
    "four gigabytes": struct.pack(">I", 0xFFFFFFFF) + b"x" * 16,
    "nothing": struct.pack(">I", 0),
    "garbage": framed(b"\xc1\xff\x00garbage"),
    "deep": framed(b"\x91" * 100_000 + b"\xc0"),
    "wrong type": framed(b"\x93\x15\xa3one\xc0"),
    "unknown kind": framed(b"\x92\xcc\xc8\x01"),
    "unknown id": wire.encode(wire.Done(999_999, wire.raw(None))),
    "as the node": wire.encode(wire.Stop(1)),
    "ready twice": wire.encode(wire.Ready(wire.PROTOCOL, [])),
    "half a frame": struct.pack(">I", 100) + b"half",
    "another pong": wire.encode(wire.Pong(77)),
    "let go": wire.encode(wire.Proceed(999_999)),
}


@ext.command("send")
async def send(said: dict[str, Any]) -> str:
    """Write one of them on every socket there is, and wait for what comes of it."""
    for number in range(256):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.write(number, FAULTS[said["fault"]])
        except OSError:
            continue
    await asyncio.sleep(3)
    return "nothing came of it"
