"""What a start came to: the node is ready, or why it is not. Crosses a pipe when the node starts in the background."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from magmobo.admin.wire import Fault
from magmobo.contracts.planes import NodeStatus


class Ready(Struct, frozen=True):
    """A node that serves. `admin_token` is set once in the life of a data folder; `ready_s` counts from the first
    setting read.
    """

    status: NodeStatus
    pid: int
    data_dir: str
    log_file: str
    ready_s: float
    admin_token: str | None = None


class Report(Struct, frozen=True):
    """Exactly one of the two is set."""

    ready: Ready | None = None
    fault: Fault | None = None

    def encode(self) -> bytes:
        """One line of JSON."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Report:
        """Raises: msgspec.DecodeError, for a line that was cut off."""
        return msgspec.json.decode(line, type=cls)
