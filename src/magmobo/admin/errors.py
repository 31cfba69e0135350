"""What the data folder and the control socket refuse, and why."""

from __future__ import annotations

import errno
from pathlib import Path

from magmobo.contracts.errors import MagError


class DataFolderError(MagError):
    """The operating system refuses the data folder for a reason that has no code of its own; the text names it."""

    code = "MAG-CORE-010"
    remedy = "Choose another folder with --data-dir, or correct what the text names."

    def __init__(self, path: Path, reason: str = "") -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"the data folder {self.path} cannot be used: {self.reason}"


class DataFolderForeign(DataFolderError):
    """The data folder belongs to another user, so that files written there would be out of somebody's reach."""

    code = "MAG-CORE-011"
    remedy = (
        "Run mag as the owner of the folder, give the folder to this user with chown, or choose another --data-dir."
    )

    def __str__(self) -> str:
        return f"the data folder {self.path} belongs to another user ({self.reason})"


class DataFolderReadOnly(DataFolderError):
    """The data folder, or the place where it would be created, cannot be written."""

    code = "MAG-CORE-012"
    remedy = (
        "Make it writable for this user (mount it read-write, chmod u+w), or choose another folder with --data-dir."
    )

    def __str__(self) -> str:
        return f"{self.path} cannot be written ({self.reason})"


class DataFolderIsFile(DataFolderError):
    """The path of the data folder names something that is not a folder."""

    code = "MAG-CORE-013"
    remedy = "Choose another folder with --data-dir, or move that file away."

    def __str__(self) -> str:
        return f"{self.path} is not a folder"


class DiskFull(DataFolderError):
    """The disk or the quota of the data folder has no room left."""

    code = "MAG-CORE-014"
    remedy = "Free some space (`df -h` and `df -i` show where), or choose a folder on another disk with --data-dir."

    def __str__(self) -> str:
        return f"no room is left on the disk of {self.path} ({self.reason})"


class DataFolderOccupied(DataFolderError):
    """The folder is not empty and was not made by MagMoBo; the node would change its mode and fill it with files."""

    code = "MAG-CORE-015"
    remedy = "Choose an empty or a new folder with --data-dir."

    def __str__(self) -> str:
        return f"{self.path} holds other files and was not made by MagMoBo"


class NodeAlreadyRuns(MagError):
    """Another node holds the lock of this data folder."""

    code = "MAG-CORE-016"
    remedy = "Stop it with `mag down`, or give this node a folder of its own with --data-dir."

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(path, pid)
        self.path, self.pid = path, pid

    def __str__(self) -> str:
        who = "another node" if self.pid is None else f"another node (pid {self.pid})"
        return f"{who} uses the data folder {self.path}"


class NodeNotRunning(MagError):
    """No node answers on the control socket of this data folder."""

    code = "MAG-ADMIN-001"
    exit_code = 3
    remedy = "Start one with `mag up`, or name the folder of the running node with --data-dir."

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"no node runs on the data folder {self.path}"


class RequestMalformed(MagError):
    """A line on the control socket is not a request: one JSON object with a text `command`."""

    code = "MAG-ADMIN-003"
    remedy = 'Send one line of JSON such as {"command": "kernel:status"}.'

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the request is malformed: {self.reason}"


class RequestTooLarge(MagError):
    """A line on the control socket is longer than the door accepts; the connection is closed."""

    code = "MAG-ADMIN-004"
    remedy = "Send less in one request."

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the request is larger than {self.limit_bytes} bytes"


class AccessDenied(MagError):
    """The control socket of this node belongs to another user."""

    code = "MAG-ADMIN-005"
    exit_code = 6
    remedy = "Run the command as the user who started the node, or as root."

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"access to {self.what} is denied"


class ControlConnectionLost(MagError):
    """The node closed the control connection, or answered with something else than an answer."""

    code = "MAG-ADMIN-006"
    retryable = True
    remedy = "Ask again; when it repeats, read the log of the node with `mag logs`."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the node did not answer: {self.reason}"


class NodeRefused(MagError):
    """The node answered a command with an error; the text, the code and the next step are the node's own."""

    code = "MAG-ADMIN-007"
    remedy = "Read the code that the text begins with: `mag explain CODE`."

    def __init__(self, code: str, text: str, next_step: str, exit_code: int) -> None:
        super().__init__(code, text, next_step, exit_code)
        self.fault_code, self.text, self.fault_next_step, self.fault_exit_code = code, text, next_step, exit_code

    def __str__(self) -> str:
        return f"{self.fault_code}: {self.text}"


class ControlPathTooLong(MagError):
    """The path of the control socket is longer than this system allows, and it has no /proc to shorten it."""

    code = "MAG-ADMIN-008"
    remedy = "Choose a data folder with a shorter path."

    def __init__(self, path: Path, limit_bytes: int) -> None:
        super().__init__(path, limit_bytes)
        self.path, self.limit_bytes = path, limit_bytes

    def __str__(self) -> str:
        return f"the path {self.path} is longer than {self.limit_bytes} bytes"


class AdminPortTaken(MagError):
    """The address of the operators' HTTP listener cannot be bound."""

    code = "MAG-ADMIN-020"
    remedy = "Set admin.port to a free port (0: any), or leave it unset, and admin.host to an address of this machine."

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port, reason)
        self.host, self.port, self.reason = host, port, reason

    def __str__(self) -> str:
        return f"the operators' HTTP listener cannot use {self.host}:{self.port} ({self.reason})"


class TooManyConnections(MagError):
    """More operators' connections are open than the control socket serves at once."""

    code = "MAG-ADMIN-009"
    retryable = True
    remedy = "Close some of them and ask again."

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"more than {self.limit} connections to the control socket are open"


class AnswerTooLarge(MagError):
    """The answer to a command is longer than a line of the control socket may be."""

    code = "MAG-ADMIN-010"
    remedy = "Ask for less at once, such as fewer events with --lines."

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the answer is larger than {self.limit_bytes} bytes"


class NodeOfOtherVersion(MagError):
    """The node does not know what this `mag` asks of it, they are of two versions; nothing was done."""

    code = "MAG-ADMIN-011"
    exit_code = 2
    remedy = (
        "Use the `mag` that the node was started with, leave out what the text names, or start the node again with the "
        "version that `mag --version` says."
    )

    def __init__(self, own_version: str, node_version: str, reason: str) -> None:
        super().__init__(own_version, node_version, reason)
        self.own_version, self.node_version, self.reason = own_version, node_version, reason

    def __str__(self) -> str:
        if self.node_version == self.own_version:
            both = f"the node runs another build of {self.own_version} than this mag"
        else:
            both = f"the node runs {self.node_version or 'another version'}, this mag is {self.own_version}"
        return f"{both}: {self.reason}"


def data_folder_error(path: Path, error: OSError) -> DataFolderError:
    """The coded error for what the system said about a file below the data folder `path`."""
    reason = (error.strerror or type(error).__name__).lower()
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return DiskFull(path, reason)
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return DataFolderReadOnly(path, reason)
        case errno.ENOTDIR:
            return DataFolderIsFile(path, reason)
    return DataFolderError(path, reason)
