"""What `mag up` prints when the node is ready: at most twelve lines.

Boundary: no I/O. The components announce addresses, commands to paste and what is not possible; this decides what fits.
The heading, the token and the way to stop always fit; then addresses, then commands, then notices, with a count of what
was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from magmobo.cli.output import printable
from magmobo.contracts.planes import NodeStatus

MAX_LINES = 12
_MAX_URLS, _MAX_EXAMPLES = 5, 3


class Line(NamedTuple):
    """One line; the label is empty for the heading."""

    label: str
    text: str


def banner(
    status: NodeStatus, *, ready_s: float, admin_token: str | None, stop_with: str, log_file: str
) -> Sequence[Line]:
    """The lines in order, at most MAX_LINES, none with a line break or a control character."""
    heading = Line("", f"MagMoBo {status.version} is {status.state} after {ready_s:.1f} s")
    token = [Line("token", f"{admin_token}  (admin; shown this once)")] if admin_token else []
    footer = [Line("stop", stop_with), Line("log", log_file)]
    urls = [Line(label, url) for label, url in status.urls.items()][:_MAX_URLS]
    room = MAX_LINES - 1 - len(token) - len(footer) - len(urls)
    examples = [Line("try", example) for example in status.examples][: min(_MAX_EXAMPLES, room - 1)]
    notices = _notices(status.notices, room - len(examples))
    lines = [heading, *urls, *examples, *token, *notices, *footer]
    return [Line(printable(line.label), printable(line.text)) for line in lines]


def _notices(notices: Sequence[str], room: int) -> list[Line]:
    if len(notices) <= room:
        return [Line("note", notice) for notice in notices]
    shown = [Line("note", notice) for notice in notices[: room - 1]]
    return [*shown, Line("note", f"{len(notices) - len(shown)} more: `mag status`")]
