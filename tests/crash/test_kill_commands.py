"""A node that is killed under commands with idempotency keys: nothing is done twice, nothing unrecorded is done, and an
answer that was given stays the answer.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from msgspec import json

from magmobo.kernel.places import audit_dir

VICTIM = Path(__file__).with_name("command_victim.py")
KILLS, KEYS = 20, 40


def one_life(folder: Path, keys: list[str], chance: random.Random | None) -> dict[str, str]:
    """Send all keys to a node that is killed at a random moment, or lives to the end; what it answered."""
    victim = subprocess.Popen([sys.executable, VICTIM, folder, *keys], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "ready\n"
    said = ""
    if chance is not None:
        said = "".join(victim.stdout.readline() for _ in range(chance.choice((0, 0, 1, 3, 8, 20))))
        time.sleep(chance.uniform(0, 0.01))
        victim.kill()
    lines = (said + victim.stdout.read()).split("\n")[:-1]
    victim.stdout.close()
    code = victim.wait(timeout=60)
    assert chance is not None or code == 0
    return {key: answer for key, _, answer in (line.partition(" ") for line in lines)}


def intents(folder: Path) -> list[str]:
    """What the audit log says was about to be done, from its own files."""
    records = [
        json.decode(line)
        for segment in sorted(audit_dir(folder).glob("audit-*.jsonl"))
        for line in segment.read_bytes().splitlines()
    ]
    ours = [record["payload"] for record in records if record["action"] == "component.restart"]
    return [payload["params"]["what"] for payload in ours if payload["phase"] == "intent"]


def test_a_killed_node_does_nothing_twice_and_nothing_unrecorded(tmp_path: Path) -> None:
    chance = random.Random(7)
    answers: dict[str, str] = {}
    killed_in_the_act = 0
    for life in range(KILLS):
        keys = [f"{life}-{number}" for number in range(KEYS)]
        told = one_life(tmp_path, keys, chance)
        again = one_life(tmp_path, keys, None)
        acts = (tmp_path / "acts").read_text().split("\n")[:-1]
        assert len(acts) == len(set(acts)), "done twice"
        assert set(acts) <= set(intents(tmp_path)), "done and not recorded before"
        assert told.items() <= again.items(), "an answer changed"
        for key, answer in again.items():
            assert answer in (key, "MAG-CMD-010"), "it says its answer, or that nobody knows"
            assert answer != key or key in acts
        killed_in_the_act += sum(answer == "MAG-CMD-010" for answer in again.values())
        answers |= again
    assert len(answers) == KILLS * KEYS
    assert killed_in_the_act > 0, "no kill hit a command; the test shows nothing"
    last = [f"{life}-{number}" for life in range(3) for number in range(KEYS)]
    assert one_life(tmp_path, last, None).items() <= answers.items()
