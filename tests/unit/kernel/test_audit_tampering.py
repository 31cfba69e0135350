"""10,000 random changes of a log, each one found; and what the judge says about each kind of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs
from tests.unit.kernel.audit_chain import Log, make_log, sealed, verdict_on

from magmobo.kernel.audit.catalogue import BREAK_FOUND, CHECKPOINT
from magmobo.kernel.audit.checkpoint import CheckpointKey
from magmobo.kernel.audit.record import GENESIS, Head, hash_of, link_of
from magmobo.kernel.audit.verify import MAX_LISTED

Files = list[tuple[int, bytes]]
MUTATIONS = 2_500  # of each of the four kinds


@pytest.fixture(scope="module")
def log() -> Log:
    """24 records in four segments, three of them checkpoints."""
    return make_log([7, 6, 8, 3], checkpoint_every=7)


def edit(files: Files, chance: random.Random) -> Files:
    """One byte becomes another."""
    number = chance.randrange(len(files))
    first_seq, data = files[number]
    at = chance.randrange(len(data))
    other = (data[at] + chance.randrange(1, 256)) % 256
    files[number] = (first_seq, data[:at] + bytes([other]) + data[at + 1 :])
    return files


def cut(files: Files, chance: random.Random) -> Files:
    """Some bytes or whole lines are gone: from the middle, the end or the beginning, or a whole segment."""
    number = chance.randrange(len(files))
    first_seq, data = files[number]
    match chance.randrange(5):
        case 0:
            del files[number]
        case 1:  # the log's tail, byte by byte
            last_seq, last = files[-1]
            files[-1] = (last_seq, last[: -chance.randint(1, len(last))])
        case 2:  # the log's tail, whole lines
            last_seq, last = files[-1]
            lines = last.splitlines(keepends=True)
            files[-1] = (last_seq, b"".join(lines[: -chance.randint(1, len(lines))]))
        case 3:  # its head
            files[0] = (files[0][0], files[0][1][chance.randint(1, len(files[0][1])) :])
        case _:
            start = chance.randrange(len(data))
            end = chance.randint(start + 1, len(data))
            files[number] = (first_seq, data[:start] + data[end:])
    return files


def insert(files: Files, chance: random.Random) -> Files:
    """Bytes, an old line or a new one that is sealed as ours are, somewhere."""
    number = chance.randrange(len(files))
    first_seq, data = files[number]
    lines = data.splitlines(keepends=True)
    at = chance.randint(0, len(lines))
    match chance.randrange(4):
        case 0:
            byte = chance.randint(0, len(data))
            files[number] = (first_seq, data[:byte] + chance.randbytes(chance.randint(1, 40)) + data[byte:])
            return files
        case 1:
            extra = chance.choice(chance.choice(files)[1].splitlines(keepends=True))
        case 2:  # fits behind the line before
            before = lines[at - 1] if at else lines[0]
            link, digest = link_of(before), hash_of(before[:-1])
            assert link is not None
            assert digest is not None
            extra, _ = sealed(link.seq + 1, digest)
        case _:
            extra = b"{}\n"
    files[number] = (first_seq, b"".join([*lines[:at], extra, *lines[at:]]))
    return files


def reorder(files: Files, chance: random.Random) -> Files:
    """Two lines, or two segments, change places, or a line moves."""
    if chance.randrange(10) == 0:
        one, two = chance.sample(range(len(files)), 2)
        (seq_one, data_one), (seq_two, data_two) = files[one], files[two]
        files[one], files[two] = (seq_one, data_two), (seq_two, data_one)
        return files
    sizes = [len(data.splitlines()) for _, data in files]
    lines = [line for _, data in files for line in data.splitlines(keepends=True)]
    one, two = chance.sample(range(len(lines)), 2)
    if chance.randrange(2):
        lines[one], lines[two] = lines[two], lines[one]
    else:
        lines.insert(two, lines.pop(one))
    rest = iter(lines)
    return [
        (first_seq, b"".join(next(rest) for _ in range(size)))
        for (first_seq, _), size in zip(files, sizes, strict=True)
    ]


@pytest.mark.parametrize("mutate", [edit, cut, insert, reorder])
def test_every_random_change_is_found(log: Log, mutate: Callable[[Files, random.Random], Files]) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    genuine = log.files()
    assert verdict_on(genuine, log.head).ok
    for turn in range(MUTATIONS):
        files = mutate(list(genuine), chance)
        assert files != genuine
        verdict = verdict_on(files, log.head)
        assert not verdict.ok, f"{mutate.__name__} {turn} of seed {seed} was not found"
        assert verdict.first_break is not None


def test_every_byte_of_a_log_is_covered_and_the_record_that_holds_it_is_named() -> None:
    log = make_log([3, 2], checkpoint_every=4)
    files = log.files()
    for number, (first_seq, data) in enumerate(files):
        for at in range(len(data)):
            changed = list(files)
            changed[number] = (first_seq, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            first = verdict_on(changed, log.head).first_break
            seq = first_seq + data.count(b"\n", 0, at)
            assert first is not None, f"byte {at} of segment {first_seq}"
            assert first.seq == seq, f"byte {at} of segment {first_seq}"


def without(log: Log, *seqs: int) -> Files:
    """The log without these records; a segment that is left empty goes too."""
    kept = [
        (first_seq, b"".join(line for seq, line in enumerate(lines, first_seq) if seq not in seqs))
        for first_seq, lines in log.segments
    ]
    return [(first_seq, data) for first_seq, data in kept if data]


def swapped(log: Log, one: int, two: int) -> Files:
    lines = dict(enumerate(log.lines(), 1))
    lines[one], lines[two] = lines[two], lines[one]
    return [
        (first_seq, b"".join(lines[seq] for seq in range(first_seq, first_seq + len(of_segment))))
        for first_seq, of_segment in log.segments
    ]


@pytest.mark.parametrize(
    ("gone", "kind"),
    [
        ((10,), "missing"), ((10, 11), "missing"), ((1,), "cut_head"), ((1, 2, 3, 4, 5, 6, 7), "cut_head"),
        ((24,), "cut_tail"), ((23, 24), "cut_tail"), ((22, 23, 24), "cut_tail"), ((8,), "missing_segment"),
        ((8, 9, 10, 11, 12, 13), "missing_segment"),
    ],
)  # fmt: skip
def test_a_cut_is_named_with_the_first_record_that_is_gone(log: Log, gone: Sequence[int], kind: str) -> None:
    first = verdict_on(without(log, *gone), log.head).first_break
    assert first is not None
    assert (first.seq, first.kind) == (gone[0], kind)


@pytest.mark.parametrize(("one", "two"), [(9, 10), (9, 12), (1, 2), (7, 8), (5, 20), (23, 24)])
def test_an_exchange_is_named_with_the_first_place_that_is_wrong(log: Log, one: int, two: int) -> None:
    first = verdict_on(swapped(log, one, two), log.head).first_break
    assert first is not None
    assert (first.seq, first.kind) == (one, "reordered")


def test_a_line_that_is_no_record_is_an_insertion_where_no_record_is_missing(log: Log) -> None:
    files = log.files()
    first_seq, data = files[1]
    lines = data.splitlines(keepends=True)
    files[1] = (first_seq, b"".join([*lines[:2], b"{}\n", *lines[2:]]))
    verdict = verdict_on(files, log.head)
    assert [(found.seq, found.kind) for found in verdict.breaks] == [(first_seq + 2, "inserted")]


def test_an_old_record_that_stands_there_again_is_an_insertion(log: Log) -> None:
    files = log.files()
    first_seq, data = files[1]
    files[1] = (first_seq, data + data.splitlines(keepends=True)[0])
    verdict = verdict_on(files, log.head)
    assert [(found.seq, found.kind) for found in verdict.breaks] == [(14, "inserted")]


def rewritten(log: Log, from_seq: int, key: CheckpointKey | None = None) -> Log:
    """The log as somebody would make it who changes a record and mends every hash behind it; with a key also the
    checkpoints."""
    files, digest = [], GENESIS
    for first_seq, lines in log.segments:
        mended = []
        for seq, old in enumerate(lines, first_seq):
            line, mended_hash = old, hash_of(old[:-1])
            if seq >= from_seq:
                link = link_of(old)
                assert link is not None
                if link.action != CHECKPOINT:
                    line, mended_hash = sealed(seq, digest, payload={"forged": seq})
                elif key is not None:
                    line, mended_hash = sealed(seq, digest, CHECKPOINT, structs.asdict(key.sign(seq - 1, digest)))
                else:
                    line, mended_hash = sealed(seq, digest, CHECKPOINT, {"old": str(link.payload)})
            assert mended_hash is not None
            digest = mended_hash
            mended.append(line)
        files.append((first_seq, mended))
    return Log(files, Head(log.head.seq, digest, log.head.keys))


def test_a_past_made_up_with_right_hashes_is_found_by_the_head_and_by_the_checkpoint(log: Log) -> None:
    verdict = verdict_on(rewritten(log, 10).files(), log.head)
    assert [(found.seq, found.kind) for found in verdict.breaks] == [
        (14, "bad_checkpoint"), (21, "bad_checkpoint"), (24, "head_mismatch"),
    ]  # fmt: skip


def test_a_past_made_up_together_with_the_head_is_found_by_the_checkpoint(log: Log) -> None:
    forged = rewritten(log, 10)
    first = verdict_on(forged.files(), forged.head).first_break
    assert first is not None
    assert (first.seq, first.kind) == (14, "bad_checkpoint")


def test_a_checkpoint_signed_with_a_stranger_s_key_is_refused(log: Log) -> None:
    forged = rewritten(log, 10, CheckpointKey(Ed25519PrivateKey.generate()))
    verdict = verdict_on(forged.files(), forged.head)
    assert [(found.seq, found.kind) for found in verdict.breaks] == [(14, "bad_checkpoint"), (21, "bad_checkpoint")]
    assert verdict.signed_seq == 6


def test_one_changed_record_with_a_right_hash_of_its_own_is_named(log: Log) -> None:
    files = log.files()
    first_seq, data = files[1]
    lines = data.splitlines(keepends=True)
    link = link_of(lines[2])
    assert link is not None
    lines[2], _ = sealed(link.seq, link.prev_hash, payload={"forged": True})
    files[1] = (first_seq, b"".join(lines))
    verdict = verdict_on(files, log.head)
    assert [(found.seq, found.kind) for found in verdict.breaks] == [(first_seq + 2, "edited")]


def test_a_head_that_is_ahead_behind_or_elsewhere_is_told(log: Log) -> None:
    lines = log.lines()
    behind = Head(20, hash_of(lines[19][:-1]) or "", log.head.keys)
    ahead = Head(30, "a" * 64, log.head.keys)
    elsewhere = Head(24, "a" * 64, log.head.keys)
    told = [verdict_on(log.files(), head).first_break for head in (behind, ahead, elsewhere)]
    assert [(found.seq, found.kind) for found in told if found] == [
        (21, "beyond_head"), (25, "cut_tail"), (24, "head_mismatch"),
    ]  # fmt: skip


def test_without_a_head_a_whole_log_is_not_proven_whole(log: Log) -> None:
    verdict = verdict_on(log.files(), None)
    assert not verdict.ok
    assert [found.kind for found in verdict.breaks] == ["head_unknown"]
    assert (verdict.records, verdict.signed_seq) == (24, 20)


def test_a_break_that_the_node_recorded_stays_a_break(log: Log) -> None:
    line, digest = sealed(25, log.head.hash, BREAK_FOUND, {"seq": 9, "reason": "found at the start"})
    verdict = verdict_on([*log.files(), (25, line)], Head(25, digest, log.head.keys))
    assert [(found.seq, found.kind) for found in verdict.breaks] == [(9, "recorded_break")]


def test_a_segment_under_another_name_is_told(log: Log) -> None:
    files = log.files()
    files[1] = (files[1][0] + 1, files[1][1])
    first = verdict_on(files, log.head).first_break
    assert first is not None
    assert (first.seq, first.kind) == (8, "renamed_segment")


@pytest.mark.parametrize(
    "rubbish", [b"", b"\n" * 1_000, b"x" * 1_000_000, b"[" * 70_000 + b"\n", bytes(range(256)) * 400]
)
def test_rubbish_in_place_of_a_log_gives_a_verdict(rubbish: bytes) -> None:
    verdict = verdict_on([(1, rubbish)], Head(3, "a" * 64))
    assert not verdict.ok
    assert len(verdict.breaks) <= MAX_LISTED
    assert verdict.breaks_found >= len(verdict.breaks)


def test_an_empty_log_that_should_be_empty_is_whole() -> None:
    assert verdict_on([], Head(0, GENESIS)).ok
