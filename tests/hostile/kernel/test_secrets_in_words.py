"""Components of others put connection strings into their words. Nobody who looks at the node gets to see a password."""

from __future__ import annotations

import asyncio

import pytest

from magmobo.admin.wire import Fault
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.component import Component
from magmobo.contracts.errors import MagError
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.testing.harness import running_kernel

VIEWER = Actor(name="uid:1", role=Role.VIEWER, via="control")
ADMIN = Actor(name="uid:1", role=Role.ADMIN, via="control")
PASSWORD = "planted-Passw0rd"
WORDS = f"cannot reach postgres://mag:{PASSWORD}@db/x with password={PASSWORD}"
SOON = {"health": {"interval_s": 0.01, "failures": 100}}
DEADLINE_S = 60
QUESTIONS = (
    ("kernel:status", b"{}"), ("component:list", b"{}"), ("component:show", b'{"component":"talker"}'),
    ("kernel:events", b'{"limit":1000}'), ("audit:tail", b'{"limit":1000}'),
)  # fmt: skip


class Ours(MagError):
    """Raised by a component in the way of ours."""

    code = "MAG-TEST-100"

    def __str__(self) -> str:
        return WORDS


class Talker(Component):
    """Starts once; what it does then depends on the test."""

    name = "talker"
    starts = 0

    async def start(self) -> None:
        type(self).starts += 1


@pytest.mark.parametrize(
    "error", [RuntimeError(WORDS), Ours(), OSError(5, WORDS)], ids=lambda error: type(error).__name__
)
async def test_an_error_is_told_without_its_password(error: Exception) -> None:
    class Fails(Talker):
        async def start(self) -> None:
            await super().start()
            if self.starts > 1:
                raise error

    async with running_kernel(Fails) as kernel:
        run = kernel.services.commands.run
        with pytest.raises(MagError) as refusal:
            await run("component:restart", b'{"component":"talker"}', actor=ADMIN)
        answers = [await run(command, params, actor=ADMIN) for command, params in QUESTIONS]
    told = Fault.of(refusal.value)
    assert "cannot reach" in told.text
    assert PASSWORD not in told.text
    assert sum(b"cannot reach" in answer for answer in answers) >= 3
    assert not [answer for answer in answers if PASSWORD.encode() in answer]


@pytest.mark.parametrize("status", [HealthStatus.DEGRADED, HealthStatus.UNHEALTHY, HealthStatus.HEALTHY])
async def test_health_is_told_without_it(status: HealthStatus) -> None:
    class Complains(Talker):
        async def health(self) -> HealthReport:
            return HealthReport.of(HealthCheck("db", status, WORDS, outside=True))

    async with running_kernel(Complains, config=SOON) as kernel:
        run = kernel.services.commands.run
        async with asyncio.timeout(DEADLINE_S):
            while b"cannot reach" not in await run("component:show", b'{"component":"talker"}', actor=VIEWER):
                await asyncio.sleep(0.005)
        answers = [await run(command, params, actor=ADMIN) for command, params in QUESTIONS]
    assert not [answer for answer in answers if PASSWORD.encode() in answer]


async def test_a_boot_that_fails_is_told_without_it() -> None:
    class Fails(Talker):
        async def boot(self) -> None:
            raise RuntimeError(WORDS)

    with pytest.raises(MagError) as failure:
        async with running_kernel(Fails):
            raise AssertionError("it booted")
    assert "cannot reach" in str(failure.value)
    assert PASSWORD not in str(failure.value)
