"""Components that the tests of the node run in real processes, by dotted name."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from magmobo.contracts.component import Announcement, Component, Context
from magmobo.contracts.errors import MagError
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus

HERE = "tests.integration.node.parts"


class SteadyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [steady]."""

    greeting: Annotated[str, Meta(min_length=1, max_length=20)] = "hello"


class Steady(Component):
    """Works; leaves a file when it has drained."""

    name = "steady"
    config_type = SteadyConfig

    def __init__(self, context: Context) -> None:
        self._context = context

    def configure(self, config: SteadyConfig) -> None:
        self._greeting = config.greeting

    async def start(self) -> None:
        (self._context.data_dir / "drained").unlink(missing_ok=True)

    async def stop(self) -> None:
        (self._context.data_dir / "drained").touch()

    def announce(self) -> Announcement:
        return Announcement(
            urls={"rest": "http://127.0.0.1:1/rest/v1/"},
            examples=[f"curl {self._greeting}"],
            notices=["live changes need \x1b[31mwal_level=logical"],
        )


class Sick(Component):
    """Runs and says that it does not serve."""

    name = "sick"

    def __init__(self, context: Context) -> None: ...

    async def health(self) -> HealthReport:
        return HealthReport.of(HealthCheck("disk", HealthStatus.UNHEALTHY, "is on fire"))


class OutOfLuck(MagError):
    """The test wants it so."""

    code = "MAG-TEST-001"
    exit_code = 5
    remedy = "Try another day."

    def __str__(self) -> str:
        return "no luck today"


class Failing(Component):
    """Does not boot."""

    name = "failing"

    def __init__(self, context: Context) -> None: ...

    async def boot(self) -> None:
        raise OutOfLuck


class Crashing(Component):
    """Takes the whole process down while it boots, with a child that must not survive it."""

    name = "crashing"

    def __init__(self, context: Context) -> None: ...

    async def boot(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Endless(Component):
    """Never finishes to boot; a file says that it has begun."""

    name = "endless"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def boot(self) -> None:
        print("booting", file=sys.stderr, flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            (self._context.data_dir / "rolled_back").touch()


class Stubborn(Component):
    """Blocks the whole loop when it should stop, after saying so."""

    name = "stubborn"

    def __init__(self, context: Context) -> None: ...

    async def stop(self) -> None:
        print("stopping", file=sys.stderr, flush=True)
        while True:  # not even the loop gets a turn
            pass


class Parent(Component):
    """Owns a child process that dies with the node, as every owner of children must see to."""

    name = "parent"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def start(self) -> None:
        script = (
            "import ctypes, signal, time\n"
            "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
            "print('up', flush=True)\ntime.sleep(120)"
        )
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
        assert child.stdout is not None
        await child.stdout.readline()
        Path(self._context.data_dir / "child").write_text(str(child.pid))


class Environ(Component):
    """Leaves what a child process finds in its environment."""

    name = "environ"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def boot(self) -> None:
        with (self._context.data_dir / "child_environ").open("wb") as file:
            child = await asyncio.create_subprocess_exec("env", stdout=file)
            await child.wait()


class SlowStop(Component):
    """Takes until a file called `go` is there to stop, and says when it begins and ends."""

    name = "slowstop"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def stop(self) -> None:
        print("stopping slowly", file=sys.stderr, flush=True)
        while not (self._context.data_dir / "go").exists():
            await asyncio.sleep(0.02)
        print("stopped slowly", file=sys.stderr, flush=True)


class Brittle(Component):
    """Runs until a file called `break` is there."""

    name = "brittle"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def start(self) -> None:
        self._context.spawn(self._watch(), name="watch")

    async def _watch(self) -> None:
        while not (self._context.data_dir / "break").exists():
            await asyncio.sleep(0.02)
        raise OutOfLuck
