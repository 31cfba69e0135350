"""Commands about the kernel of the running node: `kernel:blame`, `:events`, `:reset`, `:commands`."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from magmobo.admin.errors import AnswerTooLarge, NodeRefused
from magmobo.cli import options, statuses
from magmobo.cli.context import ask, client_of, fields_of
from magmobo.cli.output import echo, echo_error, print_json, printable, styled
from magmobo.contracts.operations import (
    BlameEntry,
    BootReport,
    CommandCatalogue,
    EventPage,
    KernelBlame,
    KernelEvents,
    KernelReset,
    ListCommands,
)
from magmobo.contracts.planes import NodeStatus

if TYPE_CHECKING:
    from magmobo.admin.client import AdminClient

_BAR_CHARS = 40
_PAGE_EVENTS = 200
_POLL_S = 20.0
T = TypeVar("T")


@click.command("kernel:blame")
@options.data_dir
@options.timeout(10.0)
@options.as_json
def blame(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Where the last boot spent its time. What is marked `#` was on the critical path: only it made the boot longer."""
    report = ask(client_of(data_dir, timeout_s), KernelBlame(), BootReport)
    if as_json:
        print_json("kernel:blame", fields_of(report))
    else:
        echo("\n".join(blame_lines(report)))
    return 0


def blame_lines(report: BootReport) -> Iterator[str]:
    """The boot as a picture: a row for each stage and each phase of a component, `#` for what decided its length."""
    yield f"booted in {report.boot_s:.3f} s at {printable(report.started_at)}"
    if report.interrupted:
        yield "the boot before this one did not end; what it had begun was begun again"
    yield f"  {'at s':>8}  {'took s':>8}  "
    for entry in sorted(report.entries, key=lambda entry: (entry.at_s, -entry.duration_s, entry.component)):
        name = f"  {entry.component} {entry.phase}" if entry.component else entry.stage
        row = f"  {entry.at_s:>8.3f}  {entry.duration_s:>8.3f}  {printable(name):<28.28}  {_bar(entry, report.boot_s)}"
        yield styled(row.rstrip(), "yellow") if entry.critical else row.rstrip()


def _bar(entry: BlameEntry, boot_s: float) -> str:
    scale = _BAR_CHARS / boot_s if boot_s > 0 else 0.0
    begin = min(_BAR_CHARS - 1, max(0, int(entry.at_s * scale)))
    length = min(_BAR_CHARS - begin, max(1, round(entry.duration_s * scale)))
    return " " * begin + ("#" if entry.critical else "-") * length


@click.command("kernel:events")
@options.data_dir
@click.option("--pattern", default="**", help="Topics: a.b, a.* (one more word), a.** (any).  [default: all]")
@click.option("--lines", type=click.IntRange(min=1), default=50, show_default=True, help="How many of the last events.")
@click.option("--after", type=click.IntRange(min=0), help="Everything behind this cursor of an earlier answer.")
@click.option("--follow", "--watch", "-f", "follow", is_flag=True, help="Go on with new events until interrupted.")
@options.timeout(10.0)
@click.option("--json", "as_json", is_flag=True, help="One object; with --follow one in each line.")
def events(
    data_dir: Path | None, pattern: str, lines: int, after: int | None, follow: bool, timeout_s: float, as_json: bool
) -> int:
    """Events as the node remembers them, oldest first. It says so when some were forgotten before they were told."""
    reader = EventReader(client_of(data_dir, timeout_s), pattern)
    page = reader.last(lines) if after is None else reader.behind(after)
    _print_page(page, as_json=as_json)
    while follow:
        page = reader.wait(page.cursor)
        if page.events or page.missed:
            _print_page(page, as_json=as_json)
    return 0


class EventReader:
    """Reads pages of events. Every call raises what `AdminClient` raises."""

    def __init__(self, client: AdminClient, pattern: str) -> None:
        self._client, self._pattern = client, pattern

    def last(self, count: int) -> EventPage:
        """The last `count` events that the node remembers; none of them counts as missed."""
        kept: deque[Any] = deque(maxlen=count)
        cursor = 0
        for page in self._pages(cursor):
            kept.extend(page.events)
            cursor = page.cursor
        return EventPage(list(kept), cursor, 0)

    def behind(self, cursor: int) -> EventPage:
        """Everything after `cursor`, and how many had been forgotten by then."""
        found: list[Any] = []
        missed = 0
        for page in self._pages(cursor):
            cursor, missed = page.cursor, missed + page.missed
            found += page.events
        return EventPage(found, cursor, missed)

    def wait(self, cursor: int) -> EventPage:
        """The next events after `cursor`, an empty page when there were none for a while."""
        return self._page(cursor, wait_s=_POLL_S)

    def _pages(self, cursor: int) -> Iterator[EventPage]:
        """Page after page up to now. On a busy node there is always one more event, so those of later end it too."""
        began_s = time.time()
        while True:
            page = self._page(cursor)
            yield page
            if not page.events or page.cursor <= cursor or _time_s(page.events[-1]) >= began_s:
                return
            cursor = page.cursor

    def _page(self, cursor: int, *, wait_s: float = 0.0) -> EventPage:
        def asked(limit: int) -> EventPage:
            question = KernelEvents(after=cursor, limit=limit, pattern=self._pattern, wait_s=wait_s)
            return ask(self._client, question, EventPage, wait_s=wait_s)

        return page_that_fits(asked, _PAGE_EVENTS)


def _time_s(event: Mapping[str, Any]) -> float:
    """When a CloudEvent happened, seconds since 1970; the end of time when it does not say."""
    try:
        return datetime.fromisoformat(str(event["time"])).timestamp()
    except (KeyError, ValueError):
        return math.inf


def page_that_fits(asked: Callable[[int], T], limit: int) -> T:
    """What `asked(limit)` answers; fewer at once where they are so large that many make no answer."""
    while True:
        try:
            return asked(limit)
        except NodeRefused as error:
            if error.fault_code != AnswerTooLarge.code or limit == 1:
                raise
            limit = max(1, limit // 8)


def _print_page(page: EventPage, *, as_json: bool) -> None:
    if as_json:
        print_json("kernel:events", fields_of(page))
        return
    if page.missed:
        echo_error(f"mag: {page.missed} events were forgotten before they could be shown")
    if page.events:
        echo("\n".join(event_line(event) for event in page.events))


def event_line(event: Any) -> str:
    """One CloudEvent for people: time, topic, fields."""
    topic = str(event.get("type", "")).removeprefix("dev.magmobo.").removesuffix(".v1")
    data = event.get("data")
    pairs = data.items() if isinstance(data, dict) else ()
    fields = " ".join(f"{name}={_shown(value)}" for name, value in pairs)
    return f"{printable(str(event.get('time', '')))}  {printable(topic):<28}  {printable(fields)}".rstrip()


@click.command("kernel:reset")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(300.0)
@options.as_json
def reset(data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool) -> int:
    """Shut every component down and boot the node again, in the same process. Every client is disconnected."""
    client = client_of(data_dir, timeout_s)
    if not dry_run:
        options.confirm("Shut every component down and boot again?", yes=yes, alone=False)
    node = fields_of(ask(client, KernelReset(), NodeStatus, dry_run=dry_run))
    if as_json:
        print_json("kernel:reset", statuses.kernel_status_fields(node))
    else:
        echo("would unboot and boot again" if dry_run else "unbooted and booted again")
        echo("\n".join(statuses.kernel_status_lines(node)))
    return statuses.exit_code_of(node)


@click.command("kernel:commands")
@options.data_dir
@options.timeout(10.0)
@options.as_json
def commands(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Every command that the node answers; --json adds the schema of its fields and of its answer."""
    catalogue = ask(client_of(data_dir, timeout_s), ListCommands(), CommandCatalogue)
    if as_json:
        print_json("kernel:commands", fields_of(catalogue))
        return 0
    for info in catalogue.commands:
        traits = ", ".join(
            word
            for word, said in ((info.capability, info.capability), ("audited", info.audited), ("dry run", info.dry_run))
            if said
        )
        echo(f"  {printable(info.name):<24}{printable(info.summary)}  ({printable(traits)})")
    return 0


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return value if isinstance(value, str) else json.dumps(value)
