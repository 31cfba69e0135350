"""Answers questions of extensions: which method, may they, are the arguments what it takes, then its handler.

`admit` decides at once and on the caller's turn of the loop, so that a flood of what is refused costs no tasks; `run`
does the work. Invariant: an extension is told errors that were raised on purpose (MagError) and no others; nothing of
the node's insides leaves in a text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from magmobo.contracts.errors import DeadlineExceeded, MagError
from magmobo.extensions.gate.errors import AnswerTooLarge, ArgumentsRefused, MethodFailed, UnknownMethod
from magmobo.extensions.gate.gatekeeper import Gatekeeper
from magmobo.extensions.gate.ledger import Tally
from magmobo.extensions.installed import ApiMethod, Caller
from magx import wire

if TYPE_CHECKING:
    import structlog

MAX_ANSWER_BYTES = wire.MAX_FRAME_BYTES - 64
_REASON_CHARS = 300


class Admitted(Struct, frozen=True, gc=False):
    """A call that may be made now, with its arguments checked."""

    caller: Caller
    method: ApiMethod
    args: Any
    tally: Tally


class ApiDispatcher:
    """Every method of the node, by name."""

    def __init__(self, methods: Sequence[ApiMethod], gatekeeper: Gatekeeper, log: structlog.stdlib.BoundLogger) -> None:
        """Raises: ValueError when two methods have one name."""
        self._methods = {method.name: method for method in methods}
        if len(self._methods) < len(methods):
            raise ValueError("two methods have one name")
        self._gatekeeper, self._log = gatekeeper, log
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {}

    async def call(self, caller: Caller, method: str, args: Raw) -> Raw:
        """The answer of a method. Raises: MagError."""
        return await self.run(self.admit(caller, method, args))

    def admit(self, caller: Caller, method: str, args: Raw) -> Admitted:
        """Decide about a call. Raises: UnknownMethod, ArgumentsRefused, GateRefused."""
        known = self._methods.get(method)
        if known is None:
            # Not under the name that was asked for: there are as many as an extension can think of.
            self._gatekeeper.denied(caller.extension, "", "unknown", "unknown_method")
            raise UnknownMethod
        tally = self._gatekeeper.tally(caller.extension.id, "api", known.name)
        try:
            self._gatekeeper.allow(caller, known)
            return Admitted(caller, known, self._decode(known, args), tally)
        except MagError:
            self._gatekeeper.refused(caller.extension, known.name)
            raise

    async def run(self, admitted: Admitted) -> Raw:
        """Make a call that was admitted, within its caller's deadline. Raises: MagError."""
        method, caller = admitted.method, admitted.caller
        began_s = time.perf_counter()
        result = "cancelled"
        try:
            answer = await self._handled(admitted)
            result = "ok"
        except MagError:
            result = "failed"
            raise
        except Exception as error:
            result = "failed"
            self._log.error("an api method failed", method=method.name, extension=caller.extension.id, exc_info=error)
            raise MethodFailed(method.name) from error
        finally:
            admitted.tally.note(result, time.perf_counter() - began_s)
        return answer

    async def _handled(self, admitted: Admitted) -> Raw:
        method, caller = admitted.method, admitted.caller
        left_s = caller.deadline_s - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(caller.deadline_s) as limit:
                await self._gatekeeper.before(caller, method)
                result = await method.handle(caller, admitted.args)
        except TimeoutError:
            if limit.expired():
                raise DeadlineExceeded(method.name, round(max(0.0, left_s), 3)) from None
            raise
        try:
            packed = wire.raw(result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise MethodFailed(method.name) from error
        if len(bytes(packed)) > MAX_ANSWER_BYTES:
            raise AnswerTooLarge(method.name)
        return packed

    def _decode(self, method: ApiMethod, args: Raw) -> Any:
        decoder = self._decoders.get(method.name)
        if decoder is None:
            decoder = self._decoders[method.name] = msgspec.msgpack.Decoder(method.args)
        try:
            return decoder.decode(args)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise ArgumentsRefused(method.name, str(error)[:_REASON_CHARS]) from error
