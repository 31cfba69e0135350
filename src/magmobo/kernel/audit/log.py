"""The audit log of a node, as the kernel holds it: open, record, read, close. Implements `contracts.audit.Audit`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import json

from magmobo.contracts.audit import AuditAction, AuditRecord, Severity
from magmobo.contracts.capabilities import Actor
from magmobo.contracts.errors import AuditUnavailable, UnknownAuditAction
from magmobo.contracts.stores import State
from magmobo.kernel.audit.catalogue import CATALOGUE, OWN
from magmobo.kernel.audit.disk import Sealed
from magmobo.kernel.audit.record import Draft, draft
from magmobo.kernel.audit.segments import SEGMENT_BYTES
from magmobo.kernel.audit.writer import GroupWriter, open_writer, reason_of

if TYPE_CHECKING:
    from magmobo.kernel.audit.view import View, Wanted


class AuditLog:
    """The one writer of the log in `folder`, which nobody else writes to while it is open.

    Args:
        folder: the log's own folder, made 0700 when it is missing.
        state: scope `audit` of the state store; its key `head` is this log's.
        mask: gives a copy of what is about to be written, without its secrets.
        checkpoint_every: records between two signed checkpoints; `close` writes one more.
        on_problem: is told, on the loop, what an operator must know; `problems` holds what still stands.
    """

    def __init__(
        self,
        folder: Path,
        state: State,
        *,
        mask: Callable[[Any], Any],
        time_s: Callable[[], float] = time.time,
        checkpoint_every: int = 1_000,
        segment_bytes: int = SEGMENT_BYTES,
        on_problem: Callable[[str], None] | None = None,
    ) -> None:
        self._folder, self._state, self._mask, self._time_s = folder, state, mask, time_s
        self._checkpoint_every, self._segment_bytes, self._on_problem = checkpoint_every, segment_bytes, on_problem
        self._writer: GroupWriter | None = None
        self._accepting = False

    async def open(self) -> None:
        """Take the log over, report and record what is wrong with it, and accept records.

        A log that is broken, or a disk that is full, is a problem and no error. Raises: AuditLogInUse,
        AuditUnavailable when the folder or the state cannot be read.
        """
        self._writer = await open_writer(
            self._folder,
            self._state,
            time_s=self._time_s,
            segment_bytes=self._segment_bytes,
            checkpoint_every=self._checkpoint_every,
            tell=self._on_problem or _nobody,
        )
        self._accepting = True
        await self._writer.write_owed()

    async def close(self) -> None:
        """Write what waits and a last checkpoint, give the files back. Calling it twice is fine; raises nothing."""
        if self._accepting and self._writer is not None:
            self._accepting = False
            await self._writer.close()

    def tune(self, *, checkpoint_every: int) -> None:
        """Sign after so many records from now on."""
        self._checkpoint_every = checkpoint_every
        if self._writer is not None:
            self._writer.tune(checkpoint_every=checkpoint_every)

    @property
    def head_seq(self) -> int:
        head = self._writer.head if self._writer is not None else None
        return head.seq if head is not None else 0

    @property
    def problems(self) -> Sequence[str]:
        """What an operator must know now, each in a line; empty when all is well."""
        if self._writer is None:
            return []
        return [*self._writer.lasting, *([self._writer.outage] if self._writer.outage else [])]

    @property
    def records_total(self) -> int:
        """Records that others asked for and that became durable, since `open`."""
        return self._writer.records_total if self._writer is not None else 0

    @property
    def write_errors_total(self) -> int:
        """Records that could not be made durable, since `open`."""
        return self._writer.errors_total if self._writer is not None else 0

    def action(self, name: str) -> AuditAction:
        known = CATALOGUE.get(name)
        if known is None or known.category == OWN:  # what the log says of itself is nobody else's to say
            raise UnknownAuditAction(name)
        return known

    async def record(
        self,
        action: str,
        *,
        actor: Actor,
        payload: Mapping[str, Any],
        trace_id: str = "",
        severity: Severity | None = None,
    ) -> AuditRecord:
        known = self.action(action)
        if self._writer is None or not self._accepting:
            raise AuditUnavailable("it is not open")
        item = draft(
            known,
            payload,
            actor=actor,
            mask=self._mask,
            time_s=self._time_s(),
            trace_id=trace_id,
            severity=severity,
        )
        return _record(item, await self._writer.write(item))

    async def read(self, *, after_seq: int, limit: int) -> Sequence[AuditRecord]:
        head_seq = self.head_seq
        if after_seq >= head_seq or limit <= 0:
            return []
        try:
            return await asyncio.to_thread(self._read, max(after_seq, 0), limit, head_seq)
        except OSError as error:
            raise AuditUnavailable(reason_of(error)) from error

    async def look(self, wanted: Wanted, *, after_seq: int, limit: int) -> View:
        """Durable records for people: at most `limit` behind `after_seq`, or the last ones where that is below 0.

        Raises: AuditUnavailable.
        """
        from magmobo.kernel.audit import view  # for who asks

        head_seq = self.head_seq
        try:
            if after_seq < 0:
                return await asyncio.to_thread(view.last_records, self._folder, wanted, limit=limit, up_to_seq=head_seq)
            return await asyncio.to_thread(
                view.next_records, self._folder, wanted, after_seq=after_seq, limit=limit, up_to_seq=head_seq
            )
        except OSError as error:
            raise AuditUnavailable(reason_of(error)) from error

    async def wait_beyond(self, seq: int, timeout_s: float) -> bool:
        """Return once a record behind `seq` is durable, or after `timeout_s`; whether there is one."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._writer is not None and self.head_seq <= seq:
                    await self._writer.grown.wait()
        except TimeoutError:
            return False
        return self.head_seq > seq

    def _read(self, after_seq: int, limit: int, head_seq: int) -> list[AuditRecord]:
        from magmobo.kernel.audit.reader import records_in  # for who asks

        found = records_in(self._folder, after_seq=after_seq, up_to_seq=head_seq)
        return [record for _, record in zip(range(limit), found, strict=False)]


def _record(item: Draft, where: Sealed) -> AuditRecord:
    """What stands on the line, for the caller."""
    return AuditRecord(
        id=item.id,
        action=item.action.name,
        payload=json.decode(item.payload),
        ip_address=item.ip_address,
        created_at=item.created_at,
        seq=where.seq,
        severity=item.severity,
        category=item.action.category,
        actor=item.actor,
        trace_id=item.trace_id,
        prev_hash=where.prev_hash,
        hash=where.hash,
    )


def _nobody(text: str) -> None:
    """Problems stay in `problems`."""
