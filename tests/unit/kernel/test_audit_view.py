"""What operators see of the log: never crowded by what comes by itself, and never without saying so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import finalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.kernel.audit_chain import sealed

from magmobo.contracts.audit import AuditRecord
from magmobo.kernel.audit import view
from magmobo.kernel.audit.catalogue import CHECKPOINT
from magmobo.kernel.audit.record import GENESIS
from magmobo.kernel.audit.view import View, Wanted, last_records, next_records

CALLS = {"calls": [{"extension": "one", "kind": "api", "name": "kv.get", "result": "ok", "count": 3}]}
ORDER = {"command": "extension:grant", "phase": "intent", "params": {"id": "one"}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "calls": ("extension.calls", CALLS),
    "checkpoint": (CHECKPOINT, {}),
    "order": ("extension.grant", ORDER),
    "denied": ("extension.denied", {"extension": "two", "capability": "database.read"}),
    "restart": ("component.restart", {"params": {"id": "one"}}),
}


def commands(folder: Path, *lines: tuple[str, str, str]) -> Path:
    """A log of these: phase (empty: a record of calls), trace and, of an intent, id of the extension."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = GENESIS
    for seq, (phase, trace, extension) in enumerate(lines, 1):
        payload: dict[str, Any] = {"command": "extension:grant", "phase": phase}
        payload |= {"params": {"id": extension}} if phase == "intent" else {"result": "ok"}
        action = "extension.grant" if phase else "extension.calls"
        line, digest = sealed(seq, digest, action, payload if phase else CALLS, trace_id=trace)
        with (folder / "audit-000000000001.jsonl").open("ab") as file:
            file.write(line)
    return folder


def written(folder: Path, kinds: Sequence[str]) -> Path:
    """A log of these, in segments of 40."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = GENESIS
    for seq, kind in enumerate(kinds, 1):
        action, payload = KINDS[kind]
        line, digest = sealed(seq, digest, action, payload)
        first = (seq - 1) // 40 * 40 + 1
        with (folder / f"audit-{first:012}.jsonl").open("ab") as file:
            file.write(line)
    return folder


def seqs(found: View) -> list[int]:
    return [record.seq for record in found.records]


def test_the_last_ones_are_found_behind_thousands_of_calls(tmp_path: Path) -> None:
    kinds = ["restart", "order", *["calls"] * 3000, "checkpoint", "denied", *["calls"] * 500]
    log = written(tmp_path, kinds)
    found = last_records(log, Wanted(), limit=2, up_to_seq=len(kinds))
    assert [record.action for record in found.records] == ["extension.grant", "extension.denied"]
    assert (found.cursor, found.behind, found.left_out) == (len(kinds), 1, 3500)
    assert seqs(last_records(log, Wanted(everything=True), limit=2, up_to_seq=len(kinds))) == [
        len(kinds) - 1,
        len(kinds),
    ]


def test_no_more_are_held_at_a_time_than_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a flood of calls behind a day of denials costs the node 60 MB, and its loop a long collection."""
    kinds = [*["denied"] * 2000, *["calls"] * 1000]
    log = written(tmp_path, kinds)
    held, most, chosen = 0, 0, view._chosen

    def let_go() -> None:
        nonlocal held
        held -= 1

    def watched(*about: Any) -> Iterator[Any]:
        nonlocal held, most
        for seq, record in chosen(*about):
            if record is not None and record is not view._LEFT_OUT:
                record = Held(**structs.asdict(record))
                finalize(record, let_go)
                held += 1
                most = max(most, held)
            yield seq, record
            del record

    monkeypatch.setattr(view, "_chosen", watched)
    found = last_records(log, Wanted(), limit=5, up_to_seq=len(kinds))
    assert seqs(found) == [1996, 1997, 1998, 1999, 2000]
    assert (found.left_out, found.behind) == (1000, 1995)
    assert most <= 7


class Held(AuditRecord, frozen=True, weakref=True):
    """A record whose end is seen."""


@pytest.mark.parametrize(
    ("wanted", "expected", "left_out"),
    [
        (Wanted(), [1, 2, 3], 2),
        (Wanted(everything=True), [1, 2, 3, 4, 5, 6], 0),
        (Wanted(action="extension.denied"), [2], 0),
        (Wanted(action="extension.*"), [1, 2], 2),
        (Wanted(action="extension.calls"), [4, 6], 0),
        (Wanted(action=CHECKPOINT), [5], 0),
        (Wanted(action="extension"), [], 0),
        (Wanted(extension="one"), [1], 2),
        (Wanted(extension="one", everything=True), [1, 4, 6], 0),
        (Wanted(extension="one", action="extension.calls"), [4, 6], 0),
        (Wanted(extension="two"), [2], 0),
        (Wanted(extension="on"), [], 0),
    ],
)
def test_what_is_asked_for_is_shown(tmp_path: Path, wanted: Wanted, expected: list[int], left_out: int) -> None:
    log = written(tmp_path, ["order", "denied", "restart", "calls", "checkpoint", "calls"])
    for found in (
        last_records(log, wanted, limit=10, up_to_seq=6),
        next_records(log, wanted, after_seq=0, limit=10, up_to_seq=6),
    ):
        assert (seqs(found), found.left_out, found.cursor) == (expected, left_out, 6)


BEGUN_TOGETHER = [
    ("intent", "t1", "one"), ("intent", "t2", "two"), ("outcome", "t2", ""), ("outcome", "t1", ""),
    ("outcome", "t1", ""), ("outcome", "", ""), ("intent", "t3", "one"),
]  # fmt: skip


@pytest.mark.parametrize(("extension", "expected"), [("one", [1, 4, 7]), ("two", [2, 3]), ("three", [])])
def test_what_was_asked_of_an_extension_is_shown_with_its_end(
    tmp_path: Path, extension: str, expected: list[int]
) -> None:
    log = commands(tmp_path, *BEGUN_TOGETHER)
    wanted = Wanted(extension=extension)
    assert seqs(last_records(log, wanted, limit=10, up_to_seq=7)) == expected
    assert seqs(next_records(log, wanted, after_seq=0, limit=10, up_to_seq=7)) == expected
    assert seqs(last_records(log, wanted, limit=1, up_to_seq=7)) == expected[-1:]
    paged, cursor = list[int](), 0
    while cursor < 7:  # each look is another one
        page = next_records(log, wanted, after_seq=cursor, limit=1, up_to_seq=7)
        paged, cursor = paged + seqs(page), page.cursor
    assert paged == expected


def test_an_end_is_found_whose_beginning_is_in_another_window(tmp_path: Path) -> None:
    log = commands(tmp_path, ("intent", "t", "one"), *[("", "", "")] * 500, ("outcome", "t", ""), *[("", "", "")] * 50)
    assert seqs(last_records(log, Wanted(extension="one"), limit=1, up_to_seq=552)) == [502]
    assert seqs(last_records(log, Wanted(extension="one"), limit=9, up_to_seq=552)) == [1, 502]


def test_how_far_an_end_is_looked_for_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "LOOKED_BACK", 3)
    near = commands(tmp_path / "near", ("intent", "t", "one"), *[("", "", "")] * 2, ("outcome", "t", ""))
    far = commands(tmp_path / "far", ("intent", "t", "one"), *[("", "", "")] * 3, ("outcome", "t", ""))
    assert seqs(next_records(near, Wanted(extension="one"), after_seq=3, limit=5, up_to_seq=4)) == [4]
    assert seqs(next_records(far, Wanted(extension="one"), after_seq=4, limit=5, up_to_seq=5)) == []
    assert seqs(next_records(far, Wanted(extension="one"), after_seq=0, limit=5, up_to_seq=5)) == [1, 5]
    many = commands(tmp_path / "many", *[("intent", f"t{n}", "one") for n in range(4)], ("outcome", "t0", ""))
    assert seqs(next_records(many, Wanted(extension="one"), after_seq=0, limit=9, up_to_seq=5)) == [1, 2, 3, 4]


def test_a_look_ends_somewhere_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "LOOKED_AT", 300)
    log = written(tmp_path, ["order", *["calls"] * 999])
    found = last_records(log, Wanted(), limit=5, up_to_seq=1000)
    assert (seqs(found), found.behind, found.left_out) == ([], 700, 300)
    found = next_records(log, Wanted(), after_seq=1, limit=5, up_to_seq=1000)
    assert (seqs(found), found.cursor, found.left_out) == ([], 301, 300)


def test_a_log_that_is_empty_or_damaged_is_looked_at(tmp_path: Path) -> None:
    assert last_records(tmp_path / "none", Wanted(), limit=5, up_to_seq=0) == View([], 0, 0)
    log = written(tmp_path / "log", ["order", "restart", "denied"])
    (segment,) = log.glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(lines[0] + b"{broken\n" + lines[2])
    assert seqs(last_records(log, Wanted(), limit=5, up_to_seq=3)) == [1, 3]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(list(KINDS)), max_size=120), st.integers(1, 20), st.sampled_from(["", "one"]))
def test_pages_and_the_last_page_are_what_reading_everything_gives(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], limit: int, extension: str
) -> None:
    log, wanted = written(tmp_path_factory.mktemp("log"), kinds), Wanted(extension=extension)
    shown = ("order",) if extension else ("order", "denied", "restart")
    expected = [seq for seq, kind in enumerate(kinds, 1) if kind in shown]
    last = last_records(log, wanted, limit=limit, up_to_seq=len(kinds))
    assert seqs(last) == expected[-limit:]
    assert last.left_out == sum(kind == "calls" for kind in kinds[last.behind :])
    paged, cursor, left_out = list[int](), 0, 0
    while cursor < len(kinds):
        page = next_records(log, wanted, after_seq=cursor, limit=limit, up_to_seq=len(kinds))
        paged, cursor, left_out = paged + seqs(page), page.cursor, left_out + page.left_out
    assert (paged, left_out) == (expected, kinds.count("calls"))
