"""What the chains of hooks raise besides the contract's HookDenied and HookUnavailable."""

from __future__ import annotations

from magmobo.contracts.errors import HookUnavailable, MagError


class HookTooDeep(HookUnavailable):
    """Hooks led to hooks, too often inside of each other; the innermost operation was refused. `path` is outermost
    first, each `<extension>/<hook point>`.
    """

    code = "MAG-EXT-150"
    http_status = 508
    retryable = False
    remedy = "An extension's hook does what its own hook, or another one's, guards; the path in the error says which."

    def __init__(self, point: str, path: tuple[str, ...]) -> None:
        super().__init__(point, path[-1].partition("/")[0], "")
        self.args = (point, path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.point} was refused: hooks led to it {len(self.path)} deep ({' -> '.join(self.path)})"


class AnswerRefused(MagError):
    """A hook answered with fields that it may not change, or with values of another type."""

    code = "MAG-EXT-151"
    http_status = 502
    remedy = "`docs/extensions.md` lists what a hook at this point may change; tell the extension's author."

    def __init__(self, extension: str, point: str, reason: str) -> None:
        super().__init__(extension, point, reason)
        self.extension, self.point, self.reason = extension, point, reason

    def __str__(self) -> str:
        return f"the answer of {self.extension} at {self.point} was not taken: {self.reason}"
