"""What the events, jobs and values of extensions refuse. Codes MAG-EXT-242 to 269."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class EventRefused(MagError):
    """An extension published what is not an event as it may publish them."""

    code = "MAG-EXT-242"
    http_status = 422
    remedy = "Name events as in `delay.raised`; a payload is what JSON can say, at most 64 KiB."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the event was not published: {self.reason}"


class EventsTooDeep(MagError):
    """Published events led to published events, and so on, further than may be."""

    code = "MAG-EXT-243"
    http_status = 409
    remedy = "Look for extensions that answer each other's events; do not publish what your own event led to."

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        self.depth = depth

    def __str__(self) -> str:
        return f"the event was not published: {self.depth} published events led to it, one after another"


class EventsBusy(MagError):
    """The event log does not keep up with what is to be appended, or the database is away."""

    code = "MAG-EXT-244"
    http_status = 503
    retryable = True
    remedy = "Try again in a moment; `mag component:show magds` shows how the database is."

    def __str__(self) -> str:
        return "the event log cannot take more right now"


class SubscriptionUnknown(MagError):
    """The extension has no subscription of that name."""

    code = "MAG-EXT-245"
    http_status = 404
    remedy = "Subscriptions are named under `events` in the manifest."

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no subscription {self.name[:60]!r}"


class JobRefused(MagError):
    """The job is not in the manifest, or too many of the extension wait already."""

    code = "MAG-EXT-246"
    http_status = 409
    remedy = "Jobs are named under `jobs` in the manifest; let those that wait run first."

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"the job {self.name[:60]!r} was not noted: {self.reason}"


class ValueRefused(MagError):
    """A value or key is larger than one may be, or all values of the extension together are."""

    code = "MAG-EXT-247"
    http_status = 413
    remedy = "A value has at most 64 KiB, all of them `limits.data_bytes` of the manifest; delete what is not needed."

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f"the value {self.key[:60]!r} was not kept: {self.reason}"
