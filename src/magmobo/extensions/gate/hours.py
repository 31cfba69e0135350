"""Hours of the day at which a grant counts: `HH:MM-HH:MM`, UTC; the end is not part of it, and may lie past midnight.

Boundary: no I/O. What is no such text counts at no hour.
"""

from __future__ import annotations

import re
from functools import lru_cache

DAY_S = 86_400
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


@lru_cache(maxsize=256)
def parse(hours: str) -> tuple[int, int] | None:
    """Seconds of the day of both ends; None when the text is no hours.

    >>> parse("09:00-17:30")
    (32400, 63000)
    """
    found = _HOURS.fullmatch(hours, 0, 11) if len(hours) == 11 else None
    if found is None:
        return None
    from_h, from_m, to_h, to_m = map(int, found.groups())
    return from_h * 3600 + from_m * 60, to_h * 3600 + to_m * 60


def is_within(hours: str, time_s: float) -> bool:
    """Whether this moment (seconds since 1970 UTC) lies within `hours`; empty hours are all.

    >>> is_within("22:00-06:00", 5 * 3600), is_within("22:00-06:00", 6 * 3600)
    (True, False)
    """
    if not hours:
        return True
    ends = parse(hours)
    if ends is None:
        return False
    begin_s, end_s = ends
    second = time_s % DAY_S
    return begin_s <= second < end_s if begin_s < end_s else second >= begin_s or second < end_s
