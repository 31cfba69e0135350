"""Commands about the audit log: `audit:tail`, `audit:verify`, `audit:export`. All but following work without a node."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
from msgspec import structs

from magmobo.admin import audit
from magmobo.admin.errors import NodeNotRunning
from magmobo.cli import options
from magmobo.cli.context import ask, client_of, fields_of, folder_of
from magmobo.cli.errors import OutputFileExists, OutputFileRefused
from magmobo.cli.kernel import page_that_fits
from magmobo.cli.output import as_typed, echo, echo_error, print_json, printable, shortened, styled
from magmobo.contracts.audit import AuditRecord
from magmobo.contracts.operations import AuditPage, AuditTail
from magmobo.kernel.audit.verify import Verdict
from magmobo.kernel.audit.view import Wanted

_MAX_LINES = 1000
_POLL_S = 20.0
_COLOURS = {"info": "dim", "notice": "green", "warning": "yellow", "critical": "red"}


@click.command("audit:tail")
@options.data_dir
@click.option(
    "--lines", type=click.IntRange(1, _MAX_LINES), default=50, show_default=True, help="How many of the last records."
)
@click.option("--follow", "--watch", "-f", "follow", is_flag=True, help="Go on with new records until interrupted.")
@click.option("--action", metavar="NAME", help="Only these: a name, or the beginning of some and `*`.")
@click.option("--extension", metavar="ID", help="Only what this extension did, and what was done to it.")
@click.option(
    "--all", "everything", is_flag=True, help="Also calls of extensions, which are summed up, and the log's own marks."
)
@options.timeout(10.0)
@click.option("--json", "as_json", is_flag=True, help="One object; with --follow one in each line.")
def tail(
    data_dir: Path | None,
    lines: int,
    follow: bool,
    action: str | None,
    extension: str | None,
    everything: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """The last records of the audit log; --follow needs a running node, the rest does not."""
    client = client_of(data_dir, timeout_s)
    wanted = Wanted(action or "", extension or "", everything)

    def page(after: int, wait_s: float) -> AuditPage:
        asked = AuditTail(after=after, wait_s=wait_s, **structs.asdict(wanted))
        return page_that_fits(
            lambda limit: ask(client, structs.replace(asked, limit=limit), AuditPage, wait_s=wait_s),
            lines if after < 0 else _MAX_LINES,
        )

    try:
        found = page(-1, 0.0)
    except NodeNotRunning:
        if follow:
            raise
        seen = audit.tail(folder_of(data_dir), lines, wanted)
        found = AuditPage(seen.records, seen.cursor, seen.left_out, seen.behind)
    _print_page(found, as_json=as_json)
    if not as_json:
        _say_what_is_missing(found, lines)
        if not (found.records or found.left_out or follow):
            echo_error("mag: no record is like that" if action or extension else "mag: nothing is on record yet")
    while follow:
        found = page(found.cursor, _POLL_S)
        if found.records:
            _print_page(found, as_json=as_json)
    return 0


def _print_page(page: AuditPage, *, as_json: bool) -> None:
    if as_json:
        print_json("audit:tail", fields_of(page))
    elif page.records:
        echo("\n".join(map(record_line, page.records)))


def _say_what_is_missing(page: AuditPage, lines: int) -> None:
    if page.left_out:
        records = "1 record" if page.left_out == 1 else f"{page.left_out} records"
        echo_error(f"mag: left out {records} of summed-up calls of extensions; --all shows them")
    if page.behind and len(page.records) < lines:
        echo_error(f"mag: only records behind number {page.behind} were looked at; audit:export gives everything")


def record_line(record: AuditRecord) -> str:
    """One record for people: when, its number, how grave, who, what, and with what."""
    severity = styled(f"{record.severity:<8}", _COLOURS.get(record.severity, "yellow"))
    payload = json.dumps(dict(record.payload), ensure_ascii=False) if record.payload else ""
    when, who, what = printable(record.created_at), printable(record.actor), printable(record.action)
    return f"{when}  {record.seq:>6}  {severity}  {who:<14}  {what:<22}  {printable(payload)}".rstrip()


@click.command("audit:verify")
@options.data_dir
@options.as_json
def verify(data_dir: Path | None, as_json: bool) -> int:
    """Read the whole audit log and say where it is not what was recorded. Exit 0: it is whole; 1: it is not."""
    verdict = audit.verify(folder_of(data_dir))
    if as_json:
        print_json("audit:verify", fields_of(verdict))
    else:
        echo("\n".join(verdict_lines(verdict)))
    return 0 if verdict.ok else 1


def verdict_lines(verdict: Verdict) -> Sequence[str]:
    """What was found, for people."""
    head = "unknown" if verdict.head_seq is None else str(verdict.head_seq)
    about = f"{verdict.records} records in {verdict.segments} files, {verdict.first_seq} to {verdict.last_seq}"
    signed = f"{verdict.checkpoints} checkpoints, signed up to {verdict.signed_seq}; head {head}"
    word = styled("whole", "green") if verdict.ok else styled("BROKEN", "red")
    lines = [f"{word}  {about}; {signed}"]
    lines += [f"  record {found.seq}: {found.kind}  {printable(found.detail)}" for found in verdict.breaks]
    if verdict.breaks_found > len(verdict.breaks):
        lines.append(f"  … and {verdict.breaks_found - len(verdict.breaks)} more")
    if not verdict.ok:
        lines.append(as_typed("next: keep a copy of the folder audit/ and of state/ as they are before anything else"))
    return lines


@click.command("audit:export")
@options.data_dir
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only records behind this number.")
@click.option("--output", type=click.Path(path_type=Path), help="Into this new file instead of standard output.")
@click.option("--json", "as_json", is_flag=True, help="With --output: answer with one JSON object.")
def export(data_dir: Path | None, after: int, output: Path | None, as_json: bool) -> int:
    """The audit log as JSON Lines, byte for byte as it was recorded, so that anybody can check its chain."""
    lines = audit.export(folder_of(data_dir), after_seq=after)
    if output is None:
        for line in lines:
            sys.stdout.buffer.write(line)
        return 0
    count = _write_lines(output, lines)
    if as_json:
        print_json("audit:export", {"file": str(output.absolute()), "records": count})
    else:
        echo(f"{count} lines in {printable(shortened(str(output.absolute())))}")
    return 0


def _write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """How many were written. Raises: OutputFileExists, OutputFileRefused; then no half of a file is left."""
    count = 0
    with written_whole(path, new_file(path)) as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


@contextmanager
def written_whole(path: Path, descriptor: int) -> Iterator[BinaryIO]:
    """The new file behind `descriptor`, gone again unless all of it could be written. Raises: OutputFileRefused."""
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputFileRefused(str(path), error.strerror or type(error).__name__) from error
        raise


def new_file(path: Path) -> int:
    """A descriptor of a file (0600) that was not there before. Raises: OutputFileExists, OutputFileRefused."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise OutputFileExists(str(path)) from error
    except OSError as error:
        raise OutputFileRefused(str(path), error.strerror or type(error).__name__) from error
