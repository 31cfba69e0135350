"""Schedules of jobs: five fields of cron, in UTC.

Fields are minute, hour, day of month (`L`: the last, `LW`: the last weekday), month and day of week (0 and 7 are
Sunday, `MON#1`: the first of the month, `5L`: the last). When neither day field begins with `*`, either of them is
enough. Invariant: the search for the next time is bounded to 50 years. Pure: whoever asks brings the time.
"""

from __future__ import annotations

from datetime import UTC, datetime

from magmobo.extensions.languages.errors import CronRefused

MAX_CHARS = 100
_SOME_DAY_S = 1_735_689_600.0  # a schedule comes or does not, whenever it is asked


def check_cron(text: str) -> None:
    """Raises: CronRefused for what is not a schedule, or one that never comes."""
    if len(text) > MAX_CHARS or not text.isascii():
        raise CronRefused(text, f"at most {MAX_CHARS} plain characters were expected")
    if len(text.split()) != 5:
        raise CronRefused(text, "five fields were expected")
    if next_after(text, _SOME_DAY_S) is None:
        raise CronRefused(text, "it never comes")


def next_after(text: str, time_s: float) -> float | None:
    """The first time of the schedule after `time_s`, both in seconds since 1970 UTC; None when it never comes again.

    Raises: CronRefused.

    >>> next_after("*/15 * * * *", 0.0), next_after("0 0 29 2 *", 0.0)
    (900.0, 68169600.0)
    """
    from cronsim import CronSim, CronSimError  # loaded when the first extension has a schedule

    try:
        return next(CronSim(text, datetime.fromtimestamp(time_s, UTC))).timestamp()
    except StopIteration:
        return None
    except (OverflowError, OSError, ValueError):  # beyond the calendar
        return None
    except CronSimError as error:
        reason = str(error)
        raise CronRefused(text, f"{reason[:1].lower()}{reason[1:]}") from None
