"""What is not in the languages of manifests. Codes MAG-EXT-240 and 241."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class FilterRefused(MagError):
    """A filter of a subscription is not in the language of filters, or larger than one may be."""

    code = "MAG-EXT-240"
    http_status = 422
    remedy = "Write it as in docs/extensions.md: paths such as data.table, and $eq $ne $gt $gte $lt $lte $in $regex."

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"the filter at {self.path or 'its top'}: {self.reason}"


class CronRefused(MagError):
    """A schedule is not five fields of cron, or it never comes."""

    code = "MAG-EXT-241"
    http_status = 422
    remedy = "Write minute, hour, day of month, month and day of week in UTC, as in `*/15 6-20 * * MON-FRI`."

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text, reason)
        self.text, self.reason = text, reason

    def __str__(self) -> str:
        return f"the schedule {self.text[:100]!r}: {self.reason}"
