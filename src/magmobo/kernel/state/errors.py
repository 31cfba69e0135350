"""What can be wrong with the state file itself. Errors of single calls are in `contracts.errors`."""

from __future__ import annotations

from magmobo.contracts.errors import StateUnavailable


class StateDamaged(StateUnavailable):
    """The state file does not hold what was written to it. At start it is set aside and a new one is begun."""

    code = "MAG-STATE-004"
    retryable = False
    remedy = "Look for a failing disk; put a snapshot in place of the state file while the node is down."

    def __str__(self) -> str:
        return f"the state file is damaged: {self.reason}"


class StateTooNew(StateUnavailable):
    """The state file was written by a later version of MagMoBo; it was not touched."""

    code = "MAG-STATE-005"
    retryable = False
    remedy = "Run the later version again, or put back the snapshot that was made before the upgrade."

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"its layout is number {found}, this version knows up to {known}")
        self.args = (found, known)
        self.found, self.known = found, known


class StateWentBack(StateUnavailable):
    """The state file is whole, but older than what had been acknowledged: its write-ahead log was damaged or removed,
    or an older copy was put in its place.
    """

    code = "MAG-STATE-006"
    retryable = False
    remedy = "If nobody put an older copy there on purpose, look for a failing disk and for what removes files there."

    def __init__(self, found_commits: int, acknowledged_commits: int) -> None:
        super().__init__(f"{acknowledged_commits - found_commits} acknowledged commits are missing")
        self.args = (found_commits, acknowledged_commits)
        self.found_commits, self.acknowledged_commits = found_commits, acknowledged_commits

    def __str__(self) -> str:
        return f"the state file went back in time: {self.reason}"


class StateVanished(StateUnavailable):
    """The state file is gone although there had been one; a new one was begun."""

    code = "MAG-STATE-007"
    retryable = False
    remedy = "Stop the node and put a snapshot in place of the state file, or go on with the new one."

    def __str__(self) -> str:
        return f"the state file vanished: {self.reason}"
