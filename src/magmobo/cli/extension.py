"""Commands about the extensions of a running node: look at them, start and stop them, their settings, log and events.

What lets them in is in `extension_admit`; commands of an author, which work without a node, are in
`extension_offline`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from magmobo.cli import options, statuses
from magmobo.cli.context import ask, client_of, fields_of
from magmobo.cli.extension_text import (
    detail_lines,
    letter_lines,
    log_line,
    next_step,
    page_lines,
    removed_lines,
    report_lines,
    state_of,
)
from magmobo.cli.output import as_typed, echo, echo_error, print_json, printable
from magmobo.cli.watch import repeated
from magmobo.contracts.commands import Command
from magmobo.contracts.extensions import (
    ConfigureExtension,
    DeadLetters,
    DisableExtension,
    DoctorExtensions,
    EnableExtension,
    ExtensionDetail,
    ExtensionEvents,
    ExtensionLog,
    ExtensionLogs,
    ExtensionPage,
    KillExtensions,
    ListExtensions,
    RollbackExtension,
    RunExtensionCommand,
    RunResult,
    SandboxReport,
    ShowExtension,
    UninstallExtension,
)

_id = click.argument("extension_id", metavar="ID")
_POLL_S = 20.0


@click.command("extension:list")
@options.data_dir
@options.timeout(10.0)
@options.watch
@options.as_json
def list_(data_dir: Path | None, timeout_s: float, watch: bool, as_json: bool) -> int:
    """The extensions, a line each. Exit 4: one that is enabled is not well."""
    client = client_of(data_dir, timeout_s)

    def once() -> int:
        page = ask(client, ListExtensions(), ExtensionPage)
        tell("extension:list", page, page_lines(page), as_json=as_json)
        sick = any(one.state == "error" or one.health == "unhealthy" for one in page.extensions)
        return statuses.DEGRADED if sick else 0

    return repeated(once, watch=watch, as_json=as_json)


@click.command("extension:show")
@_id
@options.data_dir
@options.timeout(10.0)
@options.watch
@options.as_json
def show(extension_id: str, data_dir: Path | None, timeout_s: float, watch: bool, as_json: bool) -> int:
    """What the extension ID may do, how much of it is used up and what waits for that, what it takes part in, reads and
    writes, and how it is.
    """
    client = client_of(data_dir, timeout_s)

    def once() -> int:
        detail = ask(client, ShowExtension(id=extension_id), ExtensionDetail)
        tell("extension:show", detail, detail_lines(detail), as_json=as_json)
        return 0

    return repeated(once, watch=watch, as_json=as_json)


class _Order:
    """An order to one extension: what it is called, done and asked."""

    def __init__(self, command: type[Command], infinitive: str, done: str, question: str = "") -> None:
        self.command, self.infinitive, self.done, self.question = command, infinitive, done, question


_ORDERS = (
    _Order(DisableExtension, "be disabled", "disabled", "Stop it until it is enabled again?"),
    _Order(RollbackExtension, "go back", "is back", "Go back a version, its migrations undone?"),
)  # fmt: skip


def _order_command(order: _Order) -> click.Command:
    @click.command(order.command.name, help=f"{order.command.summary} --dry-run only says what would be done.")
    @_id
    @options.data_dir
    @options.dry_run
    @options.yes
    @options.timeout(120.0)
    @options.as_json
    def run(extension_id: str, data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool) -> int:
        if order.question and not dry_run:
            options.confirm(f"{printable(extension_id)}: {order.question}", yes=yes)
        build: Callable[..., Command] = order.command
        detail = ask(client_of(data_dir, timeout_s), build(id=extension_id), ExtensionDetail, dry_run=dry_run)
        return told(order.command.name, detail, f"would {order.infinitive}" if dry_run else order.done, as_json=as_json)

    return run


disable, rollback = (_order_command(order) for order in _ORDERS)


@click.command("extension:enable")
@_id
@click.option("--empty-files", is_flag=True, help="Remove the files that it keeps on this node; there is no way back.")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def enable(
    extension_id: str,
    empty_files: bool,
    data_dir: Path | None,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Start the extension ID. --dry-run only says what would be done."""
    if empty_files and not dry_run:
        question = "Remove the files that it keeps on this node, for good, and start it?"
        options.confirm(f"{printable(extension_id)}: {question}", yes=yes, alone=False)
    command = EnableExtension(id=extension_id, empty_files=empty_files)
    detail = ask(client_of(data_dir, timeout_s), command, ExtensionDetail, dry_run=dry_run)
    return told("extension:enable", detail, "would be enabled" if dry_run else "enabled", as_json=as_json)


@click.command("extension:kill")
@click.argument("extension_id", metavar="[ID]", default="")
@click.option("--all", "all_of_them", is_flag=True, help="Every extension, and none starts before --release.")
@click.option("--release", is_flag=True, help="Take the switch for all back; what was enabled starts again.")
@options.data_dir
@options.yes
@options.timeout(30.0)
@options.as_json
def kill(
    extension_id: str,
    all_of_them: bool,
    release: bool,
    data_dir: Path | None,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Kill switch: end the extension ID, or --all, at once, whatever they do."""
    if [bool(extension_id), all_of_them, release].count(True) != 1:
        raise click.UsageError("say one of ID, --all and --release")
    if all_of_them:
        options.confirm("End every extension, and keep them stopped?", yes=yes)
    page = ask(client_of(data_dir, timeout_s), KillExtensions(id=extension_id, release=release), ExtensionPage)
    return tell("extension:kill", page, page_lines(page), as_json=as_json)


@click.command("extension:uninstall")
@_id
@click.option("--delete-data", is_flag=True, help="Its tables and values too; else they stay for a later install.")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def uninstall(
    extension_id: str,
    delete_data: bool,
    data_dir: Path | None,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Remove the extension ID; with --delete-data also what is left of one that was removed without it."""
    if not dry_run:
        what = "with all its data; there is no way back" if delete_data else "its data stays"
        options.confirm(f"{printable(extension_id)}: Remove it, {what}?", yes=yes, alone=not delete_data)
    command = UninstallExtension(id=extension_id, delete_data=delete_data)
    page = ask(client_of(data_dir, timeout_s), command, ExtensionPage, dry_run=dry_run)
    lines = removed_lines(extension_id, with_data=delete_data, dry_run=dry_run)
    return tell("extension:uninstall", page, lines, as_json=as_json)


@click.command("extension:configure")
@_id
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE…")
@options.data_dir
@options.timeout(30.0)
@options.as_json
def configure(extension_id: str, pairs: tuple[str, ...], data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Set settings of ID: KEY=VALUE with VALUE as JSON, or as text. `KEY=` takes it back. `KEY=-` reads a secret from
    a pipe or the keyboard, so that it stands in no history of a shell.
    """
    values = dict(_pair(text) for text in pairs)
    command = ConfigureExtension(id=extension_id, values=values)
    detail = ask(client_of(data_dir, timeout_s), command, ExtensionDetail)
    return told("extension:configure", detail, "configured", as_json=as_json)


@click.command("extension:logs")
@_id
@click.option(
    "--lines", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many of the last lines."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines until interrupted.")
@options.data_dir
@options.timeout(10.0)
@click.option("--json", "as_json", is_flag=True, help="One object; with --follow one in each line.")
def logs(extension_id: str, lines: int, follow: bool, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """What the extension ID logged since the node started."""
    client = client_of(data_dir, timeout_s)
    page = ask(client, ExtensionLogs(id=extension_id, limit=lines), ExtensionLog)
    while True:
        if as_json:
            print_json("extension:logs", fields_of(page))
        elif page.lines:
            echo("\n".join(log_line(line) for line in page.lines))
        elif not follow:
            echo_error(f"{printable(extension_id)} has logged nothing since the node started")
        if not follow:
            return 0
        wish = ExtensionLogs(id=extension_id, after=page.cursor, wait_s=_POLL_S)
        page = ask(client, wish, ExtensionLog, wait_s=_POLL_S)


@click.command("extension:events")
@_id
@click.option("--retry", is_flag=True, help="Deliver the dead letters again.")
@click.option("--replay", type=options.Duration(max_s=604_800), help="Deliver everything again since, such as 1h.")
@options.data_dir
@options.timeout(30.0)
@options.as_json
def events(
    extension_id: str, retry: bool, replay: float | None, data_dir: Path | None, timeout_s: float, as_json: bool
) -> int:
    """Events that ID could not take (dead letters), and what of it waits for a limit; deliver dead letters, or a
    stretch of time, again.
    """
    command = ExtensionEvents(id=extension_id, retry=retry, replay_s=replay or 0.0)
    letters = ask(client_of(data_dir, timeout_s), command, DeadLetters)
    wished = ((retry, "what it could not take is delivered again"), (replay, "all of that time is delivered again"))
    done = [text for wish, text in wished if wish]
    return tell("extension:events", letters, letter_lines(extension_id, letters, done), as_json=as_json)


@click.command("extension:run")
@_id
@click.argument("command")
@click.argument("arguments", default="{}")
@options.data_dir
@options.timeout(60.0)
@options.as_json
def run(extension_id: str, command: str, arguments: str, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Run COMMAND of the extension ID with ARGUMENTS, one JSON object."""
    import json

    from magmobo.cli.call import object_of

    wish = RunExtensionCommand(id=extension_id, command=command, arguments=object_of(arguments, "ARGUMENTS"))
    answer = ask(client_of(data_dir, timeout_s), wish, RunResult)
    if as_json:
        print_json("extension:run", {"result": answer.result})
    else:
        text = json.dumps(answer.result, ensure_ascii=False, indent=2)
        echo("\n".join(printable(line) for line in text.split("\n")))
    return 0


@click.command("extension:doctor")
@options.data_dir
@options.timeout(30.0)
@options.as_json
def doctor(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """What the sandbox can do on this machine, what is missing, and how to get it. Exit 4: less than S2."""
    report = ask(client_of(data_dir, timeout_s), DoctorExtensions(), SandboxReport)
    tell("extension:doctor", report, report_lines(report), as_json=as_json)
    return 0 if report.tier in ("S2", "S3") else statuses.DEGRADED


def _pair(text: str) -> tuple[str, Any]:
    import json

    key, equals, given = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"{printable(text)[:60]}: write KEY=VALUE")
    if given == "-":
        from magmobo.cli.secretinput import read_secret

        return key, read_secret(key, None).reveal()
    if not given:
        return key, None
    try:
        return key, json.loads(given)
    except (ValueError, RecursionError):
        return key, given


def tell(command: str, reply: Any, lines: Iterator[str], *, as_json: bool) -> int:
    """The answer as one JSON object or as lines; exit code 0."""
    if as_json:
        print_json(command, fields_of(reply))
    else:
        echo("\n".join(lines))
    return 0


def told(command: str, detail: ExtensionDetail, done: str, *, as_json: bool) -> int:
    """One extension after an order: the line that says what it is now, and what comes next."""
    if as_json:
        print_json(command, fields_of(detail))
        return 0
    info = detail.info
    word = done or f"is {state_of(info)}  {printable(info.detail)}".rstrip()
    echo(f"{printable(info.id)} {printable(info.version)} {word}")
    if not word.startswith("would ") and (step := next_step(info, detail.grants)):
        echo_error(as_typed(f"next: `{step}`"))
    return 0
