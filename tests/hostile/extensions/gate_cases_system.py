"""Cases 1 to 14 and 16 to 24 on a node: what is tried against the operating system, from within real workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.hostile.extensions import attacks
from tests.hostile.extensions.node_gate import Gate, Scene, marker

from magmobo.contracts.errors import MagError

MIB = 1_048_576
CASES = (*range(1, 15), *range(16, 25))
EVERY: Mapping[str, attacks.Attack] = {**attacks.ATTACKS, **attacks.INHERITED}
WORKER_ENDED = "MAG-EXT-134"


@asynccontextmanager
async def world(gate: Gate) -> AsyncIterator[dict[str, Any]]:
    """What there is to attack: a secret of the node that every user may read, places to connect to, the node itself."""
    secret = gate.premises / "data" / "node" / "kept.txt"  # beside the folders of extensions, from which some go up
    secret.parent.mkdir(parents=True)
    secret.write_text("what the node keeps to itself", encoding="utf-8")
    secret.chmod(0o666)
    secret.parent.chmod(0o777)
    abstract = f"mag-gate-{os.getpid()}"
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_UNIX) as hidden:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        hidden.bind("\0" + abstract)
        hidden.listen()
        host = dict(word.split("=", 1) for word in gate.dsn.split())["host"]
        yield {
            "secret": str(secret), "node_pid": os.getpid(), "victim_pid": os.getpid(),
            "unix_path": f"{host}/.s.PGSQL.5432", "abstract": abstract, "tcp_port": tcp.getsockname()[1],
            "udp_port": udp.getsockname()[1], "secret_reversed": marker()[::-1],
            "memory_bytes": 64 * MIB, "data_bytes": 2 * MIB, "temp_bytes": 16 * MIB, "watched_s": 3.0,
        }  # fmt: skip


async def system_case(gate: Gate, scene: Scene, target: Mapping[str, Any]) -> None:
    """Every attack of one number, each from a worker that has not been ended for another."""
    extension_id, since = f"system-{scene.case:02}", gate.head
    await gate.admit(extension_id)
    where = await gate.run(extension_id, "where")
    own = {**target, **where, "sibling": sibling(Path(where["data_dir"]).parent)}
    names = [name for name, attack in EVERY.items() if attack.case == scene.case]
    assert names or scene.case in (13,), f"no attacks of case {scene.case}"
    for name in names:
        await attempt(gate, scene, extension_id, name, own)
    if scene.case == 13:
        await connect_outward(gate, scene, extension_id, own)
    if scene.case == 19:
        await spin(gate, scene, extension_id)
    await gate.must_record(scene, since, "extension.calls", extension_id)


def sibling(folders: Path) -> str:
    """A file of another extension, which every user could read and write."""
    diary = folders / "somebody-else" / "diary.txt"
    diary.parent.mkdir(exist_ok=True)
    diary.write_text("dear diary", encoding="utf-8")
    diary.parent.chmod(0o777)
    diary.chmod(0o666)
    return str(diary)


async def attempt(gate: Gate, scene: Scene, extension_id: str, name: str, target: Mapping[str, Any]) -> None:
    """One attack. A worker that is ended for it must be on record, and its extension stopped."""
    since = gate.head
    await make_ready(gate, extension_id, Path(target["data_dir"]))
    try:
        said = await gate.run(extension_id, "attempt", name=name, target=target)
    except MagError as error:
        if error.code != WORKER_ENDED:
            scene.note("stopped", name, f"{error.code} {error}")
            return
        await ended(gate, scene, extension_id, name, since, str(error))
        return
    assert "KeyError" not in said["how"], said
    scene.note(said["kind"], name, said["how"])


async def make_ready(gate: Gate, extension_id: str, data_dir: Path) -> None:
    """As it was at first: its own folder is empty, and it runs."""
    for one in data_dir.iterdir():
        if one.is_dir() and not one.is_symlink():
            one.chmod(0o700)
            shutil.rmtree(one)
        else:
            one.unlink()
    if await gate.state(extension_id) != "enabled":
        await gate.command("extension:enable", id=extension_id)


async def ended(gate: Gate, scene: Scene, extension_id: str, name: str, since: int, how: str) -> None:
    """Its worker is gone: by a limit, and then it starts again, or for an escape attempt, and then it is stopped."""
    if name in BY_LIMITS:
        scene.note("stopped", name, f"its process ended: {how}")
        return
    scene.note("stopped", name, "ended for an escape attempt")
    await gate.must_record(scene, since, "extension.escape_attempt", extension_id)
    if not await gate.until(lambda: _is(gate, extension_id, "disabled")):
        scene.note("leaked", name, "the extension was not stopped after it")


BY_LIMITS = frozenset(
    {"memory", "shared_memory", "many_files", "nameless_files", "hidden_files", "large_file", "fill_temp"}
)
"""Attacks whose worker may be ended without being called an escape."""


async def _is(gate: Gate, extension_id: str, state: str) -> bool:
    return await gate.state(extension_id) == state


async def connect_outward(gate: Gate, scene: Scene, extension_id: str, target: Mapping[str, Any]) -> None:
    """Case 13 by a socket of its own; by way of the node it is part of case 15."""
    for name in ("connect_tcp", "send_udp"):
        await attempt(gate, scene, extension_id, name, target)


async def spin(gate: Gate, scene: Scene, extension_id: str) -> None:
    """The caller gets an answer at its deadline, the worker is ended, and the next call is served by another one."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        await gate.run(extension_id, "spin", timeout_s=1.0)
    except MagError as error:
        scene.note("stopped", "spin", f"after {loop.time() - began_s:.1f} s: {error.code}")
    else:
        scene.note("leaked", "spin", "it came to an end")
    if await gate.until(lambda: _answers(gate, extension_id)):
        scene.note("stopped", "spin", f"served again after {loop.time() - began_s:.1f} s")
    else:
        scene.note("leaked", "spin", "no worker serves any more")


async def _answers(gate: Gate, extension_id: str) -> bool:
    try:
        await gate.run(extension_id, "where", timeout_s=2.0)
    except MagError:
        return False
    return True
