"""A thread that notices when the event loop does not turn, and says who keeps it from turning.

It posts a question to the loop and waits for the answer: the delay is the loop's lag, and when there is none within
`stall_s` the stack of the loop's thread is read and reported, once for each stall, from this thread, so that the report
is written even if the loop never turns again. Boundary: reads frames (file, line, function), never local variables,
which could hold secrets. Code that blocks inside C without releasing the GIL blocks this thread as well; it is then
reported as soon as it lets go.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType

from magmobo.kernel.deadline import short_path

_LAG_EVERY_S = 0.5
_SHARE = 0.25  # of `stall_s`: so much longer than that a stall may be before it is noticed
FRAMES = 12
_STDLIB = os.path.dirname(os.__file__)  # noqa: PTH120 (compared with file names as the interpreter writes them)


def _nobody() -> Mapping[str, str]:
    return {}


class LoopWatchdog:
    """Watches the loop on which `start` is called.

    Args:
        stall_s: a loop that has not turned for so long is stalled; noticed at most a quarter later. It may be changed
            at any time.
        report: called in the watchdog's thread with the seconds so far and one line of text; must be thread-safe.
        packages: the Python package of each component's class, by the component's name; read in that thread.
    """

    def __init__(
        self, stall_s: float, report: Callable[[float, str], None], packages: Callable[[], Mapping[str, str]] = _nobody
    ) -> None:
        self.stall_s, self._report, self._packages = stall_s, report, packages
        self.lag_s = 0.0
        """How late the loop's last answer was; while it is stalled, for how long it has been."""
        self.worst_lag_s = 0.0
        self.stalls = 0
        self._wake = threading.Event()
        self._answered_s: float | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread_id = 0

    def start(self) -> None:
        """Begin to watch the running loop, which must be the caller's. Raises: RuntimeError when it was started."""
        if self._thread is not None:
            raise RuntimeError("the watchdog has been started")
        self._loop, self._loop_thread_id = asyncio.get_running_loop(), threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="loop-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended; calling it twice, or without `start`, is fine."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._stopping:
            asked_s = time.monotonic()
            self._answered_s = None
            if not self._ask():
                return
            self._await_answer(asked_s)
            self._wake.clear()
            if not self._stopping:
                self._wake.wait(min(_LAG_EVERY_S, self.stall_s * _SHARE))

    def _ask(self) -> bool:
        try:
            if self._loop is None:
                return False
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _answer(self) -> None:
        self._answered_s = time.monotonic()
        self._wake.set()

    def _await_answer(self, asked_s: float) -> None:
        is_reported = False
        while self._answered_s is None and not self._stopping:
            self._wake.wait(self.stall_s)
            if self._answered_s is None and not self._stopping:
                self._note_lag(time.monotonic() - asked_s)
                if not is_reported and self.lag_s >= self.stall_s:
                    is_reported = True
                    self.stalls += 1
                    self._tell()
            self._wake.clear()
        if self._answered_s is not None:
            self._note_lag(self._answered_s - asked_s)

    def _note_lag(self, lag_s: float) -> None:
        self.lag_s = lag_s
        self.worst_lag_s = max(self.worst_lag_s, lag_s)

    def _tell(self) -> None:
        try:
            self._report(self.lag_s, self._culprit())
        except Exception as error:  # nobody above us could do anything about it
            sys.stderr.write(f"loop watchdog: the report failed: {type(error).__name__}: {error}\n")

    # ------------------------------------------------------------ who it is

    def _culprit(self) -> str:
        """`file:line in function`, the component if one is known, the task, and the frames around it, innermost
        first.
        """
        frames: list[FrameType] = []
        frame = sys._current_frames().get(self._loop_thread_id)
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        if not frames:
            return "an unknown place"
        try:
            packages = dict(self._packages())
        except RuntimeError:  # changed while it was read: the loop turns again
            packages = {}
        task = self._task_name()
        place = next((one for one in frames if _owner(one, packages)), None)
        place = place or next((one for one in frames if not one.f_code.co_filename.startswith(_STDLIB)), frames[0])
        component = _owner(place, packages) or _task_owner(task, packages)
        parts = [_place(place)]
        parts += [f'component "{component}"'] if component else []
        parts += [f'task "{task}"'] if task else []
        around = " < ".join(_place(one) for one in frames[:FRAMES])
        return f"{', '.join(parts)}; stack: {around}"

    def _task_name(self) -> str:
        task = asyncio.current_task(self._loop)
        return task.get_name() if task is not None else ""


def _task_owner(task: str, packages: Mapping[str, str]) -> str:
    """Tasks are named `component.hook`, `component:task` and `bus:component:pattern`."""
    words = re.split(r"[.:/]", task.removeprefix("bus:"), maxsplit=1)
    return words[0] if words[0] in packages else ""


def _owner(frame: FrameType, packages: Mapping[str, str]) -> str:
    """The component whose package the frame's code is in; nobody's when several share it."""
    module = frame.f_globals.get("__name__", "")
    owners = [name for name, package in packages.items() if module == package or module.startswith(package + ".")]
    return owners[0] if len(owners) == 1 else ""


def _place(frame: FrameType) -> str:
    return f"{short_path(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
