"""What became of a command that came with an idempotency key, for as long as the key may come again.

A key is written as `begun` before the handler runs and gets its answer afterwards, so a command is never done twice: a
key that is begun on disk and runs nowhere belongs to a node that ended meanwhile. Boundary: storage alone; who runs now
and who waits is the bus's. Bounded: the oldest keys go when there are too many, every key after its age. The age
follows the wall clock, because it spans restarts. Nothing of the parameters is kept but a salted hash.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from magmobo.contracts.capabilities import Actor
from magmobo.contracts.commands import Command
from magmobo.contracts.errors import MagError, StateUnavailable
from magmobo.contracts.secret import Secret
from magmobo.contracts.stores import State
from magmobo.kernel.commands.errors import Failure, KeyReused, OutcomeUnknown

MAX_KEYS = 1_000
MAX_AGE_S = 24 * 3600.0
MAX_ANSWER_BYTES = 65_536
_KEY, _ANSWER = "key:", "answer:"


class Outcome(Struct, frozen=True):
    """How a command ended: its answer, encoded and, in the process that gave it, as it was; or the error it raised."""

    encoded: bytes = b""
    reply: Any = None
    failure: Failure | None = None


class Slot(Struct, frozen=True):
    """One key of one actor and what it stands for. `name` is where it is kept; `meaning` is for `fingerprint`."""

    name: str
    key: str
    meaning: bytes


class Stored(Struct, frozen=True):
    """The small half of a kept key; the answer is kept beside it. `at_s` is seconds since 1970 UTC."""

    command: str
    salt: str
    fingerprint: str
    at_s: float
    begun_only: bool = True


class StoredAnswer(Struct, frozen=True):
    """The other half. `reply` is JSON text; None with no failure: it was too large to keep."""

    reply: str | None = None
    failure: Failure | None = None


def slot_for(actor: Actor, key: str, command: Command, *, dry_run: bool) -> Slot:
    """Where the key of this actor is kept, and everything that must be the same when it comes again."""
    from hashlib import sha256  # 1 ms that a node without keys need not spend

    name = sha256(f"{actor.via}\0{actor.name}\0{key}".encode()).hexdigest()[:40]
    params = msgspec.json.encode(command, enc_hook=_revealed, order="deterministic")
    return Slot(name, key, b"%s\0%d\0%s" % (command.name.encode(), dry_run, params))


def fingerprint(slot: Slot, salt: str) -> str:
    """Salted, so that equal parameters, secrets among them, do not show as equal."""
    from hashlib import sha256

    return sha256(salt.encode() + b"\0" + slot.meaning).hexdigest()


def _revealed(value: Any) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


class Answers:
    """The kept keys of one node.

    Args:
        state: None: no key can be kept, and each is refused.
        on_problem: told when an old key could not be removed; it is tried again after the next start.
    """

    def __init__(
        self,
        state: State | None,
        time_s: Callable[[], float],
        on_problem: Callable[[BaseException], None],
        *,
        max_keys: int = MAX_KEYS,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._state, self._time_s, self._on_problem = state, time_s, on_problem
        self._max_keys, self._max_age_s = max_keys, max_age_s
        self._kept: OrderedDict[str, float] | None = None  # slot name -> at_s, oldest first
        self._reading = asyncio.Lock()

    async def find(self, slot: Slot) -> Outcome | None:
        """What became of this key; None when it is new. Raises: KeyReused, OutcomeUnknown, StateUnavailable."""
        kept = await self._index()
        at_s = kept.get(slot.name)
        if at_s is None or self._is_old(at_s):
            return None
        entry = await self._store.get(_KEY + slot.name)
        if entry is None:
            return None
        stored = _read(entry.value, Stored)
        if stored is None:
            raise OutcomeUnknown(slot.key, "what was kept of it cannot be read")
        if fingerprint(slot, stored.salt) != stored.fingerprint:
            raise KeyReused(slot.key)
        if stored.begun_only:
            raise OutcomeUnknown(slot.key, f"the node ended while {stored.command} was under way")
        return await self._answer(slot, stored.command)

    async def begin(self, slot: Slot, command: str) -> None:
        """Write down that the command is about to act. Raises: StateUnavailable, and then it must not."""
        kept = await self._index()
        kept[slot.name] = self._time_s()  # before the wait: a write that is cancelled may still take effect
        kept.move_to_end(slot.name)
        await self._store.put(_KEY + slot.name, self._stored(slot, command, begun_only=True))

    async def end(self, slot: Slot, command: str, outcome: Outcome) -> None:
        """Keep how it ended, and make room. Raises: StateUnavailable; the key stays begun then."""
        kept = await self._index()
        fits = len(outcome.encoded) <= MAX_ANSWER_BYTES
        reply = outcome.encoded.decode() if fits and outcome.failure is None else None
        answer = msgspec.to_builtins(StoredAnswer(reply, outcome.failure))
        await self._store.put_all(
            {_KEY + slot.name: self._stored(slot, command, begun_only=False), _ANSWER + slot.name: answer}
        )
        kept[slot.name] = self._time_s()
        kept.move_to_end(slot.name)
        await self._make_room(kept)

    async def forget(self, slot: Slot) -> None:
        """The command did not begin after all. Raises: StateUnavailable; the key stays begun then."""
        kept = await self._index()
        await self._remove(slot.name)
        kept.pop(slot.name, None)

    # ------------------------------------------------------------ inside

    @property
    def _store(self) -> State:
        if self._state is None:
            raise StateUnavailable("this node keeps no state, so no idempotency key can be honoured")
        return self._state

    async def _index(self) -> OrderedDict[str, float]:
        """Names and ages of the kept keys, read once."""
        async with self._reading:
            if self._kept is None:
                entries = await self._store.entries(_KEY)
                ages = [(entry.key.removeprefix(_KEY), self._age_of(entry.value)) for entry in entries]
                self._kept = OrderedDict(sorted(ages, key=lambda pair: pair[1]))
            return self._kept

    def _age_of(self, value: Any) -> float:
        stored = _read(value, Stored)
        return self._time_s() if stored is None else stored.at_s  # what cannot be read leaves after its time too

    def _is_old(self, at_s: float) -> bool:
        return self._time_s() - at_s >= self._max_age_s

    def _stored(self, slot: Slot, command: str, *, begun_only: bool) -> Mapping[str, Any]:
        salt = os.urandom(16).hex()
        stored = Stored(command, salt, fingerprint(slot, salt), self._time_s(), begun_only)
        values: Mapping[str, Any] = msgspec.to_builtins(stored)
        return values

    async def _answer(self, slot: Slot, command: str) -> Outcome:
        entry = await self._store.get(_ANSWER + slot.name)
        answer = None if entry is None else _read(entry.value, StoredAnswer)
        if answer is None:
            raise OutcomeUnknown(slot.key, "its answer cannot be read")
        if answer.failure is None and answer.reply is None:
            raise OutcomeUnknown(slot.key, f"{command} ended well, but its answer was too large to keep")
        return Outcome((answer.reply or "").encode(), None, answer.failure)

    async def _make_room(self, kept: OrderedDict[str, float]) -> None:
        while kept:
            name, at_s = next(iter(kept.items()))
            if len(kept) <= self._max_keys and not self._is_old(at_s):
                return
            del kept[name]  # before the wait: another command makes room at the same time
            try:
                await self._remove(name)
            except MagError as error:
                self._on_problem(error)
                return

    async def _remove(self, name: str) -> None:
        await self._store.delete(_ANSWER + name)
        await self._store.delete(_KEY + name)


def _read(value: Any, type_: type[Any]) -> Any:
    """`value` as the Struct it was written from, None when it is something else."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return None
