"""The program of the release gate: one node, every hostile case, a line of JSON for each on standard output.

`python -m tests.hostile.extensions.gate_run MODE FOLDER [CASE …]`; MODE is `root`, `unprivileged`, `container` or
`container-root`. The process becomes what the mode says before anything of the node is made. Exit status 0 says that
every case was tried.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from tests.hostile.extensions import profiles

from magmobo.extensions.sandbox import privileges

ROOT = Path(__file__).resolve().parents[3]

CASE_S = 60.0
AS_IT_IS = "as-it-is"


def become_nobody() -> None:
    """A user without rights who has a name, because Postgres wants one; nothing when we are no root."""
    if os.geteuid() == 0:
        profiles.make_passable([Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT])
        user = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def enter_container() -> None:
    """As in a container of the usual kind, with a user of its own: no capabilities, no namespaces, no mounts."""
    become_nobody()
    privileges.drop()
    profiles.refuse_what_engines_refuse()


def enter_container_as_root() -> None:
    """As in a container of the usual kind that names no user: root with what engines leave it, no namespaces."""
    profiles.take_on("container-root")


MODES: dict[str, Callable[[], None]] = {
    "root": lambda: None,
    "unprivileged": become_nobody,
    "container": enter_container,
    "container-root": enter_container_as_root,
}


async def main(folder: Path, wanted: Sequence[int]) -> None:
    from tests.hostile.extensions import gate_cases_calls, gate_cases_data, gate_cases_package, gate_cases_system
    from tests.hostile.extensions.node_gate import Gate, Scene, gate

    async def tried(node: Gate, case: int, play: Callable[[Gate, Scene], Awaitable[None]]) -> dict[str, Any]:
        scene, error = Scene(case), ""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        node.beat.begin()
        try:
            async with asyncio.timeout(CASE_S):
                await play(node, scene)
        except Exception:
            error = traceback.format_exc(limit=-6)
        return {
            "case": case, "stopped": scene.stopped, "leaked": scene.leaked, "absent": scene.absent,
            "recorded": scene.recorded, "wanting": scene.wanting, "error": error,
            "late_ms": round(node.beat.late_s * 1000, 1), "raw_ms": round(node.beat.raw_s * 1000, 1),
            "seconds": round(loop.time() - began_s, 2),
        }  # fmt: skip

    async with gate(folder) as node:
        say({"tier": node.tier})
        plays = {**gate_cases_package.CASES, **gate_cases_data.CASES, **gate_cases_calls.CASES}
        async with gate_cases_system.world(node) as target:
            plays |= {
                case: lambda node, scene: gate_cases_system.system_case(node, scene, target)
                for case in gate_cases_system.CASES
            }
            for case in sorted(plays):
                if not wanted or case in wanted:
                    say(await tried(node, case, plays[case]))
    say({"done": True})


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    mode, folder, *wanted = sys.argv[1:]
    if mode == AS_IT_IS:
        asyncio.run(main(Path(folder), [int(word) for word in wanted]))
    else:
        MODES[mode]()
        # A program of its own, as a node is: what changed its user may not be looked at by that user.
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name, AS_IT_IS, folder, *wanted])
