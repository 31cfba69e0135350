"""What can be wrong with the places that settings and secrets are taken from, and with what a node has kept of them."""

from __future__ import annotations

from pathlib import Path

from magmobo.contracts.errors import MagError
from magmobo.kernel.errors import ConfigFileError


class SecretsFileExposed(ConfigFileError):
    """A file of secrets may be read or changed by its group or by others; nothing was taken from it."""

    code = "MAG-CONF-010"
    remedy = "`chmod 600` the named file. If others could read it, change the secrets in it."

    def __init__(self, path: str, mode: int) -> None:
        super().__init__([f"{path}: has mode {mode:04o}, so others than its owner may use it; expected 0600 or 0400"])
        self.args = (path, mode)
        self.path, self.mode = path, mode


class ReferenceFailed(MagError):
    """A secret that a setting refers to cannot be had."""

    code = "MAG-CONF-011"
    exit_code = 5
    remedy = "Store the secret where the reference looks for it, or correct the reference."

    def __init__(self, reference: str, reason: str) -> None:
        super().__init__(reference, reason)
        self.reference, self.reason = reference, reason

    def __str__(self) -> str:
        return f"{self.reference} cannot be followed: {self.reason}"


class VersionsUnavailable(MagError):
    """The folder `config` of the data folder cannot be read or written now; what was kept there is as it was."""

    code = "MAG-CONF-040"
    http_status = 503
    retryable = True
    remedy = "Look at the named reason: room on the disk, owner and mode of the data folder."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"what the node keeps of its settings is not available: {self.reason}"


class RuntimeLost(MagError):
    """The file that keeps what `mag config:set` and `mag config:rollback` said is gone, or not as it was written."""

    code = "MAG-CONF-041"
    exit_code = 5
    remedy = "Put a copy of the named file back. To begin without what it said, let it hold `{}` alone."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}; it keeps what was set at run time"

    def next_step(self) -> str:
        return f"Put a copy of the file back. To begin without what it said: `echo '{{}}' > {self.path}`."


class VersionUnknown(MagError):
    """No version of the settings with that number is kept."""

    code = "MAG-CONF-042"
    exit_code = 2
    http_status = 404
    remedy = "`mag config:history` lists those that are kept; kernel.config_versions says how many."

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version

    def __str__(self) -> str:
        return f"version {self.version} of the settings is not kept"


class VersionDamaged(MagError):
    """A kept version of the settings is not as it was written, or cannot be opened; the others are not touched."""

    code = "MAG-CONF-043"
    remedy = "Choose another version: `mag config:history` shows which ones can be restored."

    def __init__(self, version: int, reason: str) -> None:
        super().__init__(version, reason)
        self.version, self.reason = version, reason

    def __str__(self) -> str:
        return f"version {self.version} of the settings cannot be restored: {self.reason}"


class SealKeyDamaged(MagError):
    """The key that seals the kept versions of the settings is not as MagMoBo wrote it; no version can be kept now."""

    code = "MAG-CONF-044"
    remedy = "Put a copy of the named file back, or remove it: then the versions kept so far cannot be restored."

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is not as MagMoBo wrote it; it seals the kept versions of the settings"


class FilesVanished(ConfigFileError):
    """A file of settings that counted is gone or ends earlier than it did; what it said still counts in a node that
    runs, and a node that does not is not started without it.
    """

    code = "MAG-CONF-045"
    remedy = (
        "Put the file back, or accept it; `mag config:diff --accept-removed` shows what a running node would change."
    )
