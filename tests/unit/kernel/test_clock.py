"""The clock of the machine."""

from __future__ import annotations

import time

from magmobo.contracts.clock import Clock
from magmobo.kernel.clock import SystemClock


def test_asking_the_clock_costs_no_more_than_asking_the_machine() -> None:
    clock: Clock = SystemClock()
    assert clock.time_s is time.time
    assert clock.monotonic_s is time.monotonic
