"""What the command line itself refuses."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class CodeUnknown(MagError):
    """`mag explain` was asked for a code that no error of this version carries."""

    code = "MAG-CLI-001"
    exit_code = 2
    remedy = "Codes look like MAG-CONF-001; docs/errors.md lists them all."

    def __init__(self, asked: str, close: str | None = None) -> None:
        super().__init__(asked, close)
        self.asked, self.close = asked, close

    def __str__(self) -> str:
        return f"no error has the code {self.asked[:40]!r}" + (f"; did you mean {self.close}?" if self.close else "")


class BackgroundStartFailed(MagError):
    """The node that was started in the background ended before it could say whether it is ready."""

    code = "MAG-CLI-002"
    remedy = "Start it in the foreground with `mag up` to see what it prints."

    def __init__(self, exit_status: int) -> None:
        super().__init__(exit_status)
        self.exit_status = exit_status

    def __str__(self) -> str:
        if self.exit_status < 0:
            return f"the node was killed by signal {-self.exit_status} while it started"
        return f"the node ended with exit code {self.exit_status} while it started"


class DatabaseNotNamed(MagError):
    """The command works on a database of the user's and none was named."""

    code = "MAG-CLI-003"
    exit_code = 2
    remedy = "Name it: `mag detach postgres://user@host/database`, or set DATABASE_URL or magds.dsn."

    def __str__(self) -> str:
        return "no database was named; the embedded one belongs to the data folder and needs no detaching"


class NodeStillRuns(MagError):
    """The command removes what a running node needs."""

    code = "MAG-CLI-004"
    remedy = "Stop the node with `mag down`, then run the command again."

    def __init__(self, pid: int | None) -> None:
        super().__init__(pid)
        self.pid = pid

    def __str__(self) -> str:
        return "the node of this data folder is running" + ("" if self.pid is None else f" (pid {self.pid})")


class NotConfirmed(MagError):
    """A command that removes things was not confirmed, so nothing was changed."""

    code = "MAG-CLI-005"
    remedy = "Answer yes, or pass --yes where nobody can answer."

    def __str__(self) -> str:
        return "nothing was changed: the command was not confirmed"


class StopRefused(MagError):
    """The node cannot take the order to stop: its audit log cannot record it, or the node is of another version."""

    code = "MAG-CLI-011"
    remedy = "Mend the named reason, or stop the node with a signal."

    def __init__(self, reason: str, pid: int | None) -> None:
        super().__init__(reason, pid)
        self.reason, self.pid = reason, pid

    def __str__(self) -> str:
        return f"the node did not take the order: {self.reason}"

    def next_step(self) -> str:
        return self.remedy if self.pid is None else f"{self.remedy[:-1]}: `kill {self.pid}` drains it all the same."


class RoleTooLow(MagError):
    """The command goes past the node, straight at the database, with a role that is only there to look."""

    code = "MAG-CLI-010"
    exit_code = 6
    remedy = "Leave out --role and MAG_ROLE if you mean to change something."

    def __init__(self, role: str, command: str) -> None:
        super().__init__(role, command)
        self.role, self.command = role, command

    def __str__(self) -> str:
        return f'the role "{self.role}" may not {self.command}: that asks for "operator"'


class OutputFileExists(MagError):
    """The file that the command should write is there already; it is never overwritten."""

    code = "MAG-CLI-007"
    exit_code = 2
    remedy = "Name another file with --output, or move that one away."

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is there already"


class OutputFileRefused(MagError):
    """The system does not let the command write the file it should."""

    code = "MAG-CLI-008"
    remedy = "Name a file in a folder that is yours with --output."

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} cannot be written ({self.reason.lower()})"


class RunbookUnknown(MagError):
    """`mag runbook` was asked for a page that this version does not have."""

    code = "MAG-CLI-009"
    exit_code = 2
    remedy = "`mag runbook` lists the pages that there are."

    def __init__(self, asked: str, close: str | None = None) -> None:
        super().__init__(asked, close)
        self.asked, self.close = asked, close

    def __str__(self) -> str:
        return f"there is no runbook {self.asked[:40]!r}" + (f"; did you mean {self.close}?" if self.close else "")


class NoLogYet(MagError):
    """The data folder has no log, because no node has run on it."""

    code = "MAG-CLI-006"
    remedy = "Start a node with `mag up`, or name the folder of another with --data-dir."

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"there is no log at {self.path}"


class SettingUnknown(MagError):
    """`mag config:show` was asked for a key that the running node does not have."""

    code = "MAG-CLI-012"
    exit_code = 2
    remedy = "`mag config:show` lists every key of this node."

    def __init__(self, asked: str, close: str | None = None) -> None:
        super().__init__(asked, close)
        self.asked, self.close = asked, close

    def __str__(self) -> str:
        return f"there is no setting {self.asked[:80]!r}" + (f"; did you mean {self.close}?" if self.close else "")


class SecretNotRead(MagError):
    """No secret could be read from where the command was told to take it from; nothing was stored."""

    code = "MAG-CLI-013"
    exit_code = 2
    remedy = "Name a file with --value-file, send it through a pipe, or type it where the command asks for it."

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason

    def __str__(self) -> str:
        return f"no secret was read from {self.place}: {self.reason}"


class FileUnreadable(MagError):
    """A file that was named on the command line cannot be read, or cannot be what is asked for."""

    code = "MAG-CLI-014"
    exit_code = 2
    remedy = "Check its name and that you may read it."

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} cannot be taken: {self.reason}"
