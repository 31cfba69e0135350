from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.components.listener.cork import Cork


class Wire(asyncio.Transport):
    """Notes what reaches the socket, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closing()
        self.calls.append(bytes(data))

    def write_eof(self) -> None:
        self.calls.append("eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls


async def test_head_and_body_leave_as_one_piece() -> None:
    wire = Wire()
    cork = Cork(wire, asyncio.get_running_loop())
    cork.write(b"head ")
    assert wire.calls == []
    cork.write(b"body")
    assert wire.calls == [b"head body"]
    await asyncio.sleep(0)
    assert wire.calls == [b"head body"]


async def test_a_head_whose_body_is_late_leaves_alone() -> None:
    wire = Wire()
    cork = Cork(wire, asyncio.get_running_loop())
    cork.write(b"head")
    await asyncio.sleep(0)
    assert wire.calls == [b"head"]
    cork.write(b"event")
    await asyncio.sleep(0)
    assert wire.calls == [b"head", b"event"]


@pytest.mark.parametrize(("end", "seen"), [("close", [b"head", "close"]), ("write_eof", [b"head", "eof"])])
async def test_an_end_sends_what_is_held_first(end: str, seen: list[bytes | str]) -> None:
    wire = Wire()
    cork = Cork(wire, asyncio.get_running_loop())
    cork.write(b"head")
    finish: Callable[[], None] = getattr(cork, end)
    finish()
    await asyncio.sleep(0)
    assert wire.calls == seen


async def test_an_abort_sends_nothing_more() -> None:
    wire = Wire()
    cork = Cork(wire, asyncio.get_running_loop())
    cork.write(b"head")
    cork.abort()
    await asyncio.sleep(0)
    assert wire.calls == ["abort"]


@given(st.lists(st.one_of(st.binary(max_size=8), st.none()), max_size=20))
def test_every_byte_leaves_in_order(writes: list[bytes | None]) -> None:
    """None stands for a turn of the loop."""

    async def play() -> list[bytes | str]:
        wire = Wire()
        cork = Cork(wire, asyncio.get_running_loop())
        for data in writes:
            if data is None:
                await asyncio.sleep(0)
            else:
                cork.write(data)
        await asyncio.sleep(0)
        return wire.calls

    sent = asyncio.run(play())
    assert b"".join(call for call in sent if isinstance(call, bytes)) == b"".join(data for data in writes if data)
