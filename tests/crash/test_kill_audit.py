"""1,000 kill -9 of a process that writes the audit log: what was acknowledged is there, and the chain is whole."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

from tests.integration.audit.support import Place

from magmobo.kernel.audit.reader import records_in

LOGS, LIVES = 4, 250
ROOT = Path(__file__).parents[2]


async def lives_on(place: Place, seed: int) -> list[str]:
    """`LIVES` short lives of a writer on one log; `seq hash` of every record that was acknowledged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.audit_lives", str(place.path), str(LIVES), str(seed),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return list(json.loads(output))


async def test_a_thousand_kills_lose_no_acknowledged_record(tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    places = [Place(tmp_path / f"log{number}") for number in range(LOGS)]
    acknowledged = await asyncio.gather(*(lives_on(place, seed + number) for number, place in enumerate(places)))
    torn = 0
    for place, told in zip(places, acknowledged, strict=True):
        assert len(told) > LIVES
        async with place.running():
            pass  # the last life's remains are set aside
        verdict = place.verdict()
        assert verdict.ok, verdict.breaks
        assert verdict.checkpoints > 5
        assert verdict.segments > 3
        records = list(records_in(place.audit, after_seq=0))
        there = {f"{record.seq} {record.hash}" for record in records}
        assert set(told) <= there, "an acknowledged record is lost"
        assert len(set(told)) == len(told), "two records were acknowledged as one"
        torn += sum(record.action == "audit.torn_record" for record in records)
        assert sorted(path.name for path in place.aside()) == sorted(
            {record.payload["file"] for record in records if record.action == "audit.torn_record"}
        )
    assert torn > 20, "the kills did not hit what they were meant to hit"
