"""What the lifecycle of extensions refuses, and what of it can fail."""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.errors import MagError


class ExtensionBusyWith(MagError):
    """An extension's state does not allow what was asked; nothing was changed."""

    code = "MAG-EXT-300"
    http_status = 409
    remedy = (
        "`mag extension:show ID` tells its state; what is under way comes to rest, what is enabled is disabled first."
    )

    def __init__(self, extension: str, state: str, wanted: str) -> None:
        super().__init__(extension, state, wanted)
        self.extension, self.state, self.wanted = extension, state, wanted

    def __str__(self) -> str:
        return f"{self.extension} is {self.state}, so it cannot become {self.wanted}"


class ExtensionUnknown(MagError):
    """No extension of that name is installed."""

    code = "MAG-EXT-301"
    http_status = 404
    remedy = "`mag extension:list` names those that are there."

    def __init__(self, extension: str) -> None:
        super().__init__(extension)
        self.extension = extension

    def __str__(self) -> str:
        return f'no extension "{self.extension}" is installed'


class AlreadyInstalled(MagError):
    """An extension of that name is installed."""

    code = "MAG-EXT-302"
    http_status = 409
    remedy = (
        "`mag extension:show ID` says whether it waits for `mag extension:approve ID` or `mag extension:enable ID`; "
        "`mag extension:upgrade FILE` brings another version."
    )

    def __init__(self, extension: str, version: str) -> None:
        super().__init__(extension, version)
        self.extension, self.version = extension, version

    def __str__(self) -> str:
        return f"{self.extension} {self.version} is installed already"


class NotApproved(MagError):
    """An extension cannot work without capabilities that nobody approved."""

    code = "MAG-EXT-303"
    http_status = 409
    remedy = "`mag extension:show ID` tells what it asks for and why; `mag extension:approve ID` grants it."

    def __init__(self, extension: str, missing: Sequence[str]) -> None:
        super().__init__(extension, missing)
        self.extension, self.missing = extension, missing

    def __str__(self) -> str:
        return f"{self.extension} needs approval for {', '.join(self.missing)}"


class LifecycleBusy(MagError):
    """Another change of extensions is under way, on this node or another one of the database."""

    code = "MAG-EXT-304"
    http_status = 409
    retryable = True
    remedy = "Try again in a moment; `mag extension:kill ID` does not wait for it."

    def __str__(self) -> str:
        return "another change of extensions is under way"


class ConfirmationMissing(MagError):
    """A critical capability is granted only by somebody who types the extension's name."""

    code = "MAG-EXT-305"
    exit_code = 6
    http_status = 422
    remedy = "Read `mag extension:show ID`, then repeat the command with `--confirm ID`."

    def __init__(self, extension: str, capabilities: Sequence[str]) -> None:
        super().__init__(extension, capabilities)
        self.extension, self.capabilities = extension, capabilities

    def __str__(self) -> str:
        return f"{self.extension} asks for {', '.join(self.capabilities)}, which is critical: its name must be repeated"


class AnotherWaits(MagError):
    """The package that was looked at is not the one that an approval would count for by now."""

    code = "MAG-EXT-321"
    exit_code = 6
    http_status = 409
    remedy = "Look again with `mag extension:approve ID --dry-run`, then approve what you see there."

    def __init__(self, extension: str, version: str) -> None:
        super().__init__(extension, version)
        self.extension, self.version = extension, version

    def __str__(self) -> str:
        return f"another package of {self.extension} waits by now ({self.version}); nothing was granted"


class GrantRefused(MagError):
    """What was to be granted is not what the manifest asks for, or more than it; nothing was changed."""

    code = "MAG-EXT-306"
    http_status = 422
    remedy = "`mag extension:show ID` lists what it asks for; a grant may be that, or less."

    def __init__(self, extension: str, capability: str, reason: str) -> None:
        super().__init__(extension, capability, reason)
        self.extension, self.capability, self.reason = extension, capability, reason

    def __str__(self) -> str:
        return f"{self.capability} for {self.extension}: {self.reason}"


class StoppedMeanwhile(MagError):
    """An extension was stopped by somebody, or by the plane, while a change of it was under way."""

    code = "MAG-EXT-307"
    http_status = 409
    remedy = "Look at the named reason; then do it again if it is still wanted."

    def __init__(self, extension: str, reason: str) -> None:
        super().__init__(extension, reason)
        self.extension, self.reason = extension, reason

    def __str__(self) -> str:
        return f"{self.extension} was stopped meanwhile: {self.reason}"


class NeededByOthers(MagError):
    """Enabled extensions need this one."""

    code = "MAG-EXT-308"
    http_status = 409
    remedy = "Disable the named ones first; `mag extension:kill ID` ends it whoever needs it."

    def __init__(self, extension: str, others: Sequence[str]) -> None:
        super().__init__(extension, others)
        self.extension, self.others = extension, others

    def __str__(self) -> str:
        return f"{self.extension} is needed by {', '.join(self.others)}"


class NoWayBack(MagError):
    """An extension cannot be brought back to the version before."""

    code = "MAG-EXT-309"
    http_status = 409
    remedy = "Install a version that goes on from here with `mag extension:upgrade FILE`."

    def __init__(self, extension: str, reason: str) -> None:
        super().__init__(extension, reason)
        self.extension, self.reason = extension, reason

    def __str__(self) -> str:
        return f"{self.extension} cannot go back: {self.reason}"


class UpgradeFailed(MagError):
    """Another version did not come up well; the one before serves, its storage as it was."""

    code = "MAG-EXT-310"
    http_status = 422
    remedy = "Look at the named reason and at `mag extension:logs ID`; what served before goes on to serve."

    def __init__(self, extension: str, version: str, reason: str) -> None:
        super().__init__(extension, version, reason)
        self.extension, self.version, self.reason = extension, version, reason

    def __str__(self) -> str:
        return f"{self.extension} stays as it was, {self.version} did not come up: {self.reason}"


class EnableFailed(MagError):
    """An extension did not start, or says that it is not well; it is not enabled."""

    code = "MAG-EXT-311"
    http_status = 422
    remedy = "Look at the named reason and at `mag extension:logs ID`, then enable it again."

    def __init__(self, extension: str, reason: str) -> None:
        super().__init__(extension, reason)
        self.extension, self.reason = extension, reason

    def __str__(self) -> str:
        return f"{self.extension} did not start: {self.reason}"


class KeyUnknown(MagError):
    """No trusted key has that id."""

    code = "MAG-EXT-312"
    http_status = 404
    remedy = "`mag extension:trust` lists the trusted keys."

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f'no trusted key has the id "{self.key_id}"'


class SignerNotTrusted(MagError):
    """The key that signed an extension is not trusted any more."""

    code = "MAG-EXT-313"
    exit_code = 6
    http_status = 403
    remedy = "Uninstall it, or trust the key again: `mag extension:trust --add FILE`."

    def __init__(self, extension: str, key_id: str) -> None:
        super().__init__(extension, key_id)
        self.extension, self.key_id = extension, key_id

    def __str__(self) -> str:
        return f"{self.extension} is signed by {self.key_id}, which is not trusted"


class DataOfAnother(MagError):
    """Data of an extension of this name was kept, and another signer wants it."""

    code = "MAG-EXT-314"
    exit_code = 6
    http_status = 403
    remedy = "Install a package of the former signer, or remove the data: `mag extension:uninstall ID --delete-data`."

    def __init__(self, extension: str, key_id: str) -> None:
        super().__init__(extension, key_id)
        self.extension, self.key_id = extension, key_id

    def __str__(self) -> str:
        return f"the kept data of {self.extension} belongs to {self.key_id or 'a signer who is not known any more'}"


class PlaneStopped(MagError):
    """The kill switch for all extensions is on."""

    code = "MAG-EXT-315"
    http_status = 409
    remedy = "`mag extension:kill --release` takes it back."

    def __str__(self) -> str:
        return "the kill switch for all extensions is on"


class TierTooLow(MagError):
    """This machine gives less of a sandbox than an extension, or the node's settings, ask for."""

    code = "MAG-EXT-316"
    http_status = 409
    remedy = "`mag extension:doctor` says what is missing and how to get it."

    def __init__(self, extension: str, tier: str, wanted: str) -> None:
        super().__init__(extension, tier, wanted)
        self.extension, self.tier, self.wanted = extension, tier, wanted

    def __str__(self) -> str:
        return f"{self.extension} runs in a sandbox of tier {self.wanted} or better, this machine gives {self.tier}"


class TooManyExtensions(MagError):
    """As many extensions are enabled as the settings allow."""

    code = "MAG-EXT-317"
    http_status = 409
    remedy = "Disable one, or raise `extensions.max_workers`."

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} extensions are enabled, which is the limit"


class StillHere(MagError):
    """An extension that is enabled cannot be removed."""

    code = "MAG-EXT-318"
    http_status = 409
    remedy = "`mag extension:disable ID` first."

    def __init__(self, extension: str) -> None:
        super().__init__(extension)
        self.extension = extension

    def __str__(self) -> str:
        return f"{self.extension} is enabled, so it cannot be removed"


class RegistryDamaged(MagError):
    """What the database holds of an extension cannot be read as that."""

    code = "MAG-EXT-319"
    remedy = "Restore the tables `mag.extension*` from a backup, or uninstall the named extension and install it again."

    def __init__(self, extension: str, reason: str) -> None:
        super().__init__(extension, reason)
        self.extension, self.reason = extension, reason

    def __str__(self) -> str:
        return f"the registry's entry of {self.extension} is damaged: {self.reason}"


class NotWell(MagError):
    """An extension says of itself that it is not well, or does not say."""

    code = "MAG-EXT-320"
    http_status = 503
    remedy = "`mag extension:logs ID` shows what it says; its author knows what it needs."

    def __init__(self, extension: str, detail: str) -> None:
        super().__init__(extension, detail)
        self.extension, self.detail = extension, detail

    def __str__(self) -> str:
        return f"{self.extension} is not well" + (f": {self.detail}" if self.detail else "")
