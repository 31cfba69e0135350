"""What the gate refuses to extensions, and what it tells them when the node could not do it."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class GateRefused(MagError):
    """A call that an extension may not make now. `kind` is one word for records."""

    code = "MAG-EXT-140"
    http_status = 403
    kind = "refused"
    remedy = "`mag extension:show ID` shows what it may do."

    def __init__(self, extension: str, capability: str, retry_s: float = 0.0) -> None:
        super().__init__(extension, capability, retry_s)
        self.extension, self.capability, self.retry_s = extension, capability, retry_s

    def __str__(self) -> str:
        return f"{self.extension} may not use {self.capability}"


class NotGranted(GateRefused):
    """The extension does not have the capability, or no longer."""

    code = "MAG-EXT-141"
    kind = "not_granted"
    remedy = "`mag extension:grant ID CAPABILITY` gives it, when the manifest asks for it."

    def __str__(self) -> str:
        return f"{self.extension} does not have the capability {self.capability}"


class RateLimited(GateRefused):
    """The extension called more often than its grant allows."""

    code = "MAG-EXT-142"
    http_status = 429
    retryable = True
    kind = "rate"
    remedy = "Call less often; `mag extension:grant ID CAPABILITY --rate N` raises the rate."

    def __str__(self) -> str:
        return f"{self.extension} used {self.capability} too often; again in {self.retry_s:.2f} s"


class BudgetSpent(GateRefused):
    """The extension made as many calls today (UTC) as its grant allows; `retry_s`: until the day ends."""

    code = "MAG-EXT-143"
    http_status = 429
    retryable = True
    kind = "budget"
    remedy = "It may go on at midnight UTC; `mag extension:grant ID CAPABILITY --budget N` raises the budget."

    def __str__(self) -> str:
        return f"{self.extension} used up today's budget of {self.capability}"


class OutsideHours(GateRefused):
    """The capability is granted for other hours of the day than this one."""

    code = "MAG-EXT-144"
    kind = "hours"
    remedy = "`mag extension:show ID` shows the hours (UTC); `mag extension:grant` sets others."

    def __str__(self) -> str:
        return f"{self.extension} may not use {self.capability} at this hour"


class UnknownMethod(MagError):
    """An extension asked for a method that the node does not have."""

    code = "MAG-EXT-145"
    http_status = 404
    remedy = "The author's guide (docs/extensions.md) lists the methods; an older node may lack a newer one."

    def __str__(self) -> str:
        return "the node has no such method"


class ArgumentsRefused(MagError):
    """The arguments of a method are not what it takes."""

    code = "MAG-EXT-146"
    http_status = 422
    remedy = "The author's guide (docs/extensions.md) shows what each method takes."

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(method, reason)
        self.method, self.reason = method, reason

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


class AnswerTooLarge(MagError):
    """What a method answers does not fit into a frame, or cannot be said in one."""

    code = "MAG-EXT-147"
    http_status = 413
    remedy = "Ask for less at once: fewer rows, a smaller range."

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"{self.method}: the answer is too large for one frame"


class MethodFailed(MagError):
    """The node failed at what an extension asked for, by a defect of its own."""

    code = "MAG-EXT-148"
    remedy = "This is a defect of the node; its log says more. Tell whoever looks after it."

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"{self.method} failed on the side of the node"
