"""Errors of the sandbox, codes MAG-EXT-100 to 129."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class SandboxFailed(MagError):
    """A layer of the sandbox could not be put around a worker, so nothing of the extension was run."""

    code = "MAG-EXT-100"
    http_status = 503
    remedy = (
        "`mag extension:doctor` says what each layer wants of this machine. Where the text names a folder that a uid "
        "cannot enter, let others pass it (mode 0711). Enable the extension again afterwards."
    )

    def __init__(self, extension: str, layer: str, reason: str) -> None:
        super().__init__(extension, layer, reason)
        self.extension, self.layer, self.reason = extension, layer, reason

    def __str__(self) -> str:
        return f"no sandbox around {self.extension}: its layer {self.layer} could not be applied: {self.reason}"


class NoSandbox(MagError):
    """This machine has no sandbox that would hold an extension (tier S0), and running without one is not allowed."""

    code = "MAG-EXT-101"
    http_status = 503
    remedy = (
        "Run the node on Linux 5.13 or later on x86_64 or aarch64; `mag extension:doctor` says what is missing. For "
        "development alone, `extensions.allow_unsandboxed = true` runs extensions with the rights of the node."
    )

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"there is no sandbox on this machine: {self.reason}"


class ZygoteFailed(MagError):
    """The process that workers are forked from did not start, or ended while a worker was started."""

    code = "MAG-EXT-102"
    http_status = 503
    retryable = True
    remedy = "Its last words are in the log. It is started anew with the next worker; check memory and process limits."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"workers of extensions cannot be started: {self.reason}"


class WorkerUnfit(MagError):
    """What a worker was asked to be does not fit this node; nothing was started."""

    code = "MAG-EXT-103"
    remedy = "This is a defect of the extension plane: report it with the log. Other extensions are not affected."

    def __init__(self, extension: str, reason: str) -> None:
        super().__init__(extension, reason)
        self.extension, self.reason = extension, reason

    def __str__(self) -> str:
        return f"the worker of {self.extension} cannot be started: {self.reason}"


class PremisesRefused(MagError):
    """A node that is root found no folder in which extensions could reach their files and nobody else change them."""

    code = "MAG-EXT-104"
    http_status = 503
    remedy = (
        "Set `extensions.system_dir` to a folder that root may write to, and that others may pass (mode 0711 on each "
        "folder of the way) but not write to; then restart the component `extensions`."
    )

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"no files of extensions can be kept in {self.path}: {self.reason}"


class DataFolderFull(MagError):
    """An extension's own folder holds more than it may, so its worker, which would be ended at once, is not started."""

    code = "MAG-EXT-105"
    http_status = 503
    remedy = (
        "`mag extension:enable ID --empty-files` removes its files on this node and starts it. To keep them, install a "
        "version whose manifest asks for more (`limits.data_bytes`)."
    )

    def __init__(self, extension: str, excess: str) -> None:
        super().__init__(extension, excess)
        self.extension, self.excess = extension, excess

    def __str__(self) -> str:
        return (
            f"the data folder of {self.extension} holds {self.excess}; "
            f"`mag extension:enable {self.extension} --empty-files` starts it with an empty one"
        )
