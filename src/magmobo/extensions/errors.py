"""What the extension plane as a whole refuses; its rooms keep their own beside their code."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class StageRefused(MagError):
    """A part of a package did not fit what was announced, or too many packages wait."""

    code = "MAG-EXT-003"
    http_status = 422
    remedy = "Send the package again from its beginning; `mag extension:install FILE` does all of it."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the package was not taken: {self.reason}"


class NotStaged(MagError):
    """No whole package of this digest has been brought to the node."""

    code = "MAG-EXT-004"
    http_status = 404
    remedy = "`mag extension:install FILE` brings it and installs it; what was brought is kept for ten minutes."

    def __init__(self, sha256: str) -> None:
        super().__init__(sha256)
        self.sha256 = sha256

    def __str__(self) -> str:
        return f"no package {self.sha256[:12]}… is here"


class PlaneOff(MagError):
    """Extensions are switched off on this node (`extensions.enabled = false`)."""

    code = "MAG-EXT-005"
    http_status = 409
    remedy = "Set `extensions.enabled = true` and restart the component: `mag component:restart extensions`."

    def __str__(self) -> str:
        return "extensions are switched off on this node"


class NotRunning(MagError):
    """The extension has no worker on this node now."""

    code = "MAG-EXT-006"
    http_status = 503
    retryable = True
    remedy = "`mag extension:list` shows how it is; `mag extension:enable ID` starts it."

    def __init__(self, extension_id: str) -> None:
        super().__init__(extension_id)
        self.extension_id = extension_id

    def __str__(self) -> str:
        return f"{self.extension_id} does not run"


class NoSuchCommand(MagError):
    """The extension offers no command of that name."""

    code = "MAG-EXT-007"
    http_status = 404
    remedy = "`mag extension:show ID` lists what it offers."

    def __init__(self, extension_id: str, command: str, known: list[str]) -> None:
        super().__init__(extension_id, command, known)
        self.extension_id, self.command, self.known = extension_id, command, known

    def __str__(self) -> str:
        offers = f"it offers {', '.join(self.known)}" if self.known else "it offers none"
        return f"{self.extension_id} has no command {self.command!r}; {offers}"
