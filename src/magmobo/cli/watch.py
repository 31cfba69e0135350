"""`--watch`: the same question again and again, until interrupted.

On a terminal the answer is drawn over the one before; elsewhere each follows the last, so that a file or a pipe gets
whole answers, and with --json one object a line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from magmobo.cli.output import is_terminal

PAUSE_S = 2.0
_TO_THE_TOP = "\x1b[H\x1b[2J"


def repeated(show: Callable[[], int], *, watch: bool, as_json: bool, pause_s: float = PAUSE_S) -> int:
    """The exit code of `show`, which prints one answer; with `watch` it is shown without end.

    Raises: whatever `show` raises, KeyboardInterrupt.
    """
    if not watch:
        return show()
    while True:
        if not as_json and is_terminal():
            sys.stdout.write(_TO_THE_TOP)
        show()
        time.sleep(pause_s)
