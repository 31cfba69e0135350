"""Ways out of a node that no log writer sees: what a service manager shows, and what a crash leaves on the disk."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any, cast

from msgspec import Struct
from tests.integration.node.harness import up
from tests.unit.kernel.reloads import reloading, witness

from magmobo.contracts.errors import ReloadRefused
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import LIVE
from magmobo.kernel.durable import write_durably
from magmobo.node.following import Following
from magmobo.node.notify import Notifier
from magmobo.node.settings import NodeOptions

PASSWORD = "zXq83-planted-Kp"


class Door(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: int = 0
    dsn: Annotated[Secret | None, LIVE] = None


async def _refuse(self: Any, new: Door, changed: Set[str]) -> None:
    assert new.dsn is not None
    raise ReloadRefused(f"no way in with {new.dsn.reveal()}")


Talkative = witness(
    "door", config_type=Door, prepare_reload=_refuse, _act_now=lambda self, hook, section: self.hooks.append(hook)
)


async def test_systemctl_status_shows_no_secret_that_a_component_quotes(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        async with reloading(Talkative) as scene:
            options = NodeOptions(working_dir=tmp_path, environ={})
            notifier = Notifier(str(tmp_path / "notify"))
            config = scene.kernel.config
            source = cast(Any, scene.files)
            source.referred_files = list
            following = Following(options, config, source, notifier, read_at_s=time.time())
            running = asyncio.create_task(following.run(scene.kernel))
            scene.files.values = {"door": {"dsn": PASSWORD}}
            following.signalled()
            said = b""
            async with asyncio.timeout(20):
                while b"not reloaded" not in said:
                    said = await asyncio.get_running_loop().sock_recv(manager, 65_536)
            running.cancel()
            await asyncio.wait({running})
    assert b"no way in with ***" in said
    assert PASSWORD.encode() not in said


def test_a_crash_leaves_no_core(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # what the node inherits
    try:
        with up(cwd=tmp_path) as node:
            node.ready()
            assert resource.prlimit(node.process.pid, resource.RLIMIT_CORE) == (0, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_a_vault_written_over_a_planted_file_is_for_its_owner(tmp_path: Path) -> None:
    planted = tmp_path / ".vault.mag.tmp"
    planted.touch(0o666)
    planted.chmod(0o666)
    write_durably(tmp_path / "vault.mag", b"x")
    assert (tmp_path / "vault.mag").stat().st_mode & 0o777 == 0o600
