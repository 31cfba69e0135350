"""The instance in a slot, made anew: nothing of the former one reaches the next."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.unit.kernel.reloads import Section, witness
from tests.unit.kernel.virtual_time import run_virtually

from magmobo.kernel.registry import declare
from magmobo.kernel.tenant import Tenant
from magmobo.testing.harness import make_kernel

One = witness("one")


def test_a_task_that_ignored_its_end_does_not_fail_the_next_instance() -> None:
    async def story() -> None:
        failures: list[BaseException] = []
        tenant = Tenant(declare(One), make_kernel(data_dir=Path("/nowhere"))._around, failures.append)
        tenant.make({}, Section())
        doom = asyncio.get_running_loop().create_future()

        async def stubborn() -> None:
            while not doom.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(doom)
            raise RuntimeError("too late")

        late = tenant.belongings.context.spawn(stubborn(), name="stubborn")
        await tenant.close()
        tenant.make_anew()
        doom.set_result(None)
        await asyncio.wait({late})
        await asyncio.sleep(0)
        assert failures == []

        async def crash() -> None:
            raise RuntimeError("now")

        await asyncio.wait({tenant.belongings.context.spawn(crash(), name="crash")})
        await asyncio.sleep(0)
        assert [str(error) for error in failures] == ["now"]
        await tenant.close()

    run_virtually(story())


def test_what_did_not_boot_and_what_is_stale_must_be_made() -> None:
    async def story() -> None:
        tenant = Tenant(declare(One), make_kernel(data_dir=Path("/nowhere"))._around, lambda _: None)
        tenant.make({}, Section(level=1))
        assert tenant.must_be_made
        tenant.booted = True
        assert not tenant.must_be_made
        tenant.take(Section(level=2))
        assert tenant.must_be_made
        await tenant.close()
        tenant.make_anew()
        assert (tenant.is_stale, tenant.section) == (False, Section(level=2))
        await tenant.close()

    run_virtually(story())
