"""How long a limit of the node is waited for, whatever the worker says of it."""

from __future__ import annotations

from math import inf, nan

import pytest

from magmobo.extensions.events.line import limit_s


@pytest.mark.parametrize(
    ("said", "waited_s"),
    [
        ([12.5], 12.5),
        ([1.0, 30.0, nan], 30.0),
        ([nan], 0.25),
        ([-inf], 0.25),
        ([0.0], 0.25),
        ([inf], 60.0),
        ([1e300], 60.0),
    ],
)
def test_what_a_worker_says_of_a_limit_is_believed_within_what_a_rate_can_be(
    said: list[float], waited_s: float
) -> None:
    assert limit_s(list(enumerate(said))) == waited_s
