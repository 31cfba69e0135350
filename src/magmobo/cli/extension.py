"""Commands about the extensions of a running node: install, approve, enable, upgrade, look, stop.

Those of an author, which work without a node, are in `extension_offline`. Whatever gives an extension more shows what
that is before it asks; a critical capability takes the extension's id, typed.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from magmobo.cli import options, statuses
from magmobo.cli.context import ask, client_of, fields_of
from magmobo.cli.errors import FileUnreadable
from magmobo.cli.extension_text import (
    ask_lines,
    detail_lines,
    key_lines,
    letter_lines,
    log_line,
    next_step,
    page_lines,
    report_lines,
)
from magmobo.cli.output import as_typed, echo, echo_error, print_json, printable
from magmobo.cli.watch import repeated
from magmobo.contracts.commands import Command
from magmobo.contracts.extensions import (
    MAX_PACKAGE_BYTES,
    STAGE_CHUNK_BYTES,
    ApproveExtension,
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
    GrantCapability,
    InstallExtension,
    KillExtensions,
    ListExtensions,
    RevokeCapability,
    RollbackExtension,
    RunExtensionCommand,
    RunResult,
    SandboxReport,
    ShowExtension,
    Staged,
    StagePackage,
    TrustedKeys,
    TrustKeys,
    UninstallExtension,
    UpgradeExtension,
)

if TYPE_CHECKING:
    from magmobo.admin.client import AdminClient

_id = click.argument("extension_id", metavar="ID")
_package = click.argument("file", type=click.Path(path_type=Path))
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
        _tell("extension:list", page, page_lines(page), as_json=as_json)
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
    """What the extension ID may do, takes part in, reads and writes, and how it is."""
    client = client_of(data_dir, timeout_s)

    def once() -> int:
        detail = ask(client, ShowExtension(id=extension_id), ExtensionDetail)
        _tell("extension:show", detail, detail_lines(detail), as_json=as_json)
        return 0

    return repeated(once, watch=watch, as_json=as_json)


@click.command("extension:install")
@_package
@click.option("--approve", "approve_too", is_flag=True, help="Grant what it asks for, critical capabilities apart.")
@click.option("--enable", "enable_too", is_flag=True, help="Start it, when nothing waits for approval.")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def install(
    file: Path,
    approve_too: bool,
    enable_too: bool,
    data_dir: Path | None,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Install the package FILE. It runs once it is approved and enabled; you are shown what it asks for."""
    client = client_of(data_dir, timeout_s)
    digest = bring(client, file)
    detail = ask(client, InstallExtension(sha256=digest), ExtensionDetail, dry_run=True)
    if not as_json:
        echo("\n".join([f"{printable(detail.info.id)} {printable(detail.info.version)} asks for", *ask_lines(detail)]))
    if not dry_run:
        options.confirm("Install it?", yes=yes)
        detail = ask(client, InstallExtension(sha256=digest), ExtensionDetail)
        if approve_too and next_step(detail.info, detail.grants).startswith("mag extension:approve"):
            detail = ask(client, ApproveExtension(id=detail.info.id), ExtensionDetail)
        if enable_too:
            detail = ask(client, EnableExtension(id=detail.info.id), ExtensionDetail)
    return _told("extension:install", detail, "would be installed" if dry_run else "", as_json=as_json)


@click.command("extension:upgrade")
@_package
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(180.0)
@options.as_json
def upgrade(file: Path, data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool) -> int:
    """Upgrade an extension to the package FILE, without a pause. If it asks for more, the old version goes on until
    `extension:approve`; if it is not healthy, it goes back by itself.
    """
    client = client_of(data_dir, timeout_s)
    digest = bring(client, file)
    detail = ask(client, UpgradeExtension(sha256=digest), ExtensionDetail, dry_run=True)
    if not as_json:
        echo("\n".join([f"{printable(detail.info.id)} would ask for", *ask_lines(detail)]))
    if not dry_run:
        options.confirm("Upgrade it?", yes=yes)
        detail = ask(client, UpgradeExtension(sha256=digest), ExtensionDetail)
    return _told("extension:upgrade", detail, "would be upgraded" if dry_run else "", as_json=as_json)


@click.command("extension:approve")
@_id
@click.option("--only", "capabilities", multiple=True, help="Grant this capability alone (repeat for several).")
@click.option("--confirm", "typed", default="", help="ID again, which a critical capability takes.")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(180.0)
@options.as_json
def approve(
    extension_id: str,
    capabilities: tuple[str, ...],
    typed: str,
    data_dir: Path | None,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Grant what the extension ID, or an upgrade of it that waits, asks for. Each capability is shown with its risk
    and its author's reason.
    """
    client = client_of(data_dir, timeout_s)
    wish = ApproveExtension(id=extension_id, capabilities=capabilities, confirm=typed)
    planned = ask(client, wish, ExtensionDetail, dry_run=True)
    if not as_json:
        echo("\n".join([f"{printable(extension_id)} asks for", *ask_lines(planned)]))
    if dry_run:
        return _told("extension:approve", planned, "would be approved", as_json=as_json)
    waiting = [grant for grant in planned.grants if grant.state == "pending" or grant.new]
    if any(grant.risk == "critical" for grant in waiting) and not typed and not yes and sys.stdin.isatty():
        typed = click.prompt("A critical capability is among them. Type the extension's id to grant it", err=True)
        wish = ApproveExtension(id=extension_id, capabilities=capabilities, confirm=typed)
    else:
        options.confirm("Grant it?", yes=yes)
    return _told("extension:approve", ask(client, wish, ExtensionDetail), "", as_json=as_json)


@click.command("extension:grant")
@_id
@click.argument("capability")
@click.option("--table", "tables", multiple=True, help="Only this table, schema.name or schema.name(column, …).")
@click.option("--host", "hosts", multiple=True, help="Only this host.")
@click.option("--channel", "channels", multiple=True, help="Only this channel, * allowed at its end.")
@click.option("--topic", "topics", multiple=True, help="Only this topic.")
@click.option("--rate", type=click.IntRange(1, 1_000_000), help="Calls a minute.")
@click.option("--budget", type=click.IntRange(min=1), help="Calls a day.")
@click.option("--ttl", type=options.Duration(max_s=31_536_000), help="Take it back after, such as 8h or 30d.")
@click.option("--hours", default="", help="Only at these hours in UTC, such as 09:00-17:00.")
@click.option("--confirm", "typed", default="", help="ID again, which a critical capability takes.")
@options.data_dir
@options.timeout(60.0)
@options.as_json
def grant(
    extension_id: str,
    capability: str,
    tables: tuple[str, ...],
    hosts: tuple[str, ...],
    channels: tuple[str, ...],
    topics: tuple[str, ...],
    rate: int | None,
    budget: int | None,
    ttl: float | None,
    hours: str,
    typed: str,
    data_dir: Path | None,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Grant ID one CAPABILITY of those it asks for, or less of it: fewer tables, a lower rate, for a time."""
    scope = {"tables": tables, "hosts": hosts, "channels": channels, "topics": topics}
    command = GrantCapability(
        id=extension_id,
        wanted=capability,
        scope={kind: names for kind, names in scope.items() if names},
        rate_per_minute=rate,
        budget_per_day=budget,
        ttl_s=ttl,
        hours=hours,
        confirm=typed,
    )
    detail = ask(client_of(data_dir, timeout_s), command, ExtensionDetail)
    return _told("extension:grant", detail, f"{capability} granted", as_json=as_json)


@click.command("extension:revoke")
@_id
@click.argument("capability")
@options.data_dir
@options.timeout(30.0)
@options.as_json
def revoke(extension_id: str, capability: str, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Take CAPABILITY back from ID; it counts from its next call on."""
    command = RevokeCapability(id=extension_id, wanted=capability)
    detail = ask(client_of(data_dir, timeout_s), command, ExtensionDetail)
    return _told("extension:revoke", detail, f"{capability} revoked", as_json=as_json)


class _Order:
    """An order to one extension: what it is called, done and asked."""

    def __init__(self, command: type[Command], infinitive: str, done: str, question: str = "") -> None:
        self.command, self.infinitive, self.done, self.question = command, infinitive, done, question


_ORDERS = (
    _Order(EnableExtension, "be enabled", "enabled"),
    _Order(DisableExtension, "be disabled", "disabled", "Stop it until it is enabled again?"),
    _Order(RollbackExtension, "go back", "is the version before", "Go back a version, its migrations undone?"),
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
        return _told(
            order.command.name, detail, f"would {order.infinitive}" if dry_run else order.done, as_json=as_json
        )

    return run


enable, disable, rollback = (_order_command(order) for order in _ORDERS)


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
    return _tell("extension:kill", page, page_lines(page), as_json=as_json)


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
    """Remove the extension ID."""
    if not dry_run:
        what = "with all its data; there is no way back" if delete_data else "its data stays"
        options.confirm(f"{printable(extension_id)}: Remove it, {what}?", yes=yes, alone=not delete_data)
    command = UninstallExtension(id=extension_id, delete_data=delete_data)
    page = ask(client_of(data_dir, timeout_s), command, ExtensionPage, dry_run=dry_run)
    return _tell("extension:uninstall", page, page_lines(page), as_json=as_json)


@click.command("extension:configure")
@_id
@click.argument("pairs", nargs=-1, metavar="KEY=VALUE…")
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
    return _told("extension:configure", detail, "configured", as_json=as_json)


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
    """Events that ID could not take (dead letters); deliver them, or a stretch of time, again."""
    command = ExtensionEvents(id=extension_id, retry=retry, replay_s=replay or 0.0)
    letters = ask(client_of(data_dir, timeout_s), command, DeadLetters)
    return _tell("extension:events", letters, letter_lines(letters), as_json=as_json)


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

    wish = RunExtensionCommand(id=extension_id, command=command, arguments=object_of(arguments))
    answer = ask(client_of(data_dir, timeout_s), wish, RunResult)
    if as_json:
        print_json("extension:run", {"result": answer.result})
    else:
        text = json.dumps(answer.result, ensure_ascii=False, indent=2)
        echo("\n".join(printable(line) for line in text.split("\n")))
    return 0


@click.command("extension:trust")
@click.option("--add", "key_file", type=click.Path(path_type=Path), help="Trust the public key in this file.")
@click.option("--name", default="", help="Whose it is.")
@click.option("--remove", default="", metavar="KEY", help="Trust this key no more; what it signed is disabled.")
@options.data_dir
@options.yes
@options.timeout(30.0)
@options.as_json
def trust(
    key_file: Path | None, name: str, remove: str, data_dir: Path | None, yes: bool, timeout_s: float, as_json: bool
) -> int:
    """Whose packages may be installed: show the keys, --add one, --remove one."""
    if key_file is not None and remove:
        raise click.UsageError("--add and --remove exclude each other")
    public = _text_of(key_file).strip() if key_file is not None else ""
    if public:
        options.confirm(f"Trust everything that {printable(name or public)} signs?", yes=yes)
    command = TrustKeys(public=public, label=name or (key_file.stem if key_file else ""), remove=remove)
    keys = ask(client_of(data_dir, timeout_s), command, TrustedKeys)
    return _tell("extension:trust", keys, key_lines(keys), as_json=as_json)


@click.command("extension:doctor")
@options.data_dir
@options.timeout(30.0)
@options.as_json
def doctor(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """What the sandbox can do on this machine, what is missing, and how to get it. Exit 4: less than S2."""
    report = ask(client_of(data_dir, timeout_s), DoctorExtensions(), SandboxReport)
    _tell("extension:doctor", report, report_lines(report), as_json=as_json)
    return 0 if report.tier in ("S2", "S3") else statuses.DEGRADED


def bring(client: AdminClient, file: Path) -> str:
    """Bring the package in `file` to the node, part by part; its digest. Raises: FileUnreadable, MagError."""
    data = _bytes_of(file)
    digest = sha256_of(data).hexdigest()
    with _progress(len(data)) as moved:
        for offset in range(0, len(data), STAGE_CHUNK_BYTES):
            part = data[offset : offset + STAGE_CHUNK_BYTES]
            text = b64encode(part).decode()
            ask(client, StagePackage(sha256=digest, size_bytes=len(data), offset=offset, data=text), Staged)
            moved.update(len(part))
    return digest


def _progress(size_bytes: int) -> Any:
    """Drawn on a terminal alone, and only for what takes a moment."""
    hidden = not sys.stderr.isatty() or size_bytes < 20 * STAGE_CHUNK_BYTES
    return click.progressbar(length=size_bytes, label="bringing it", file=sys.stderr, hidden=hidden)


def _bytes_of(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_PACKAGE_BYTES + 1)
    except OSError as error:
        raise FileUnreadable(str(file), error.strerror or str(error)) from error
    if not data:
        raise FileUnreadable(str(file), "it is empty")
    if len(data) > MAX_PACKAGE_BYTES:
        raise FileUnreadable(str(file), f"it is larger than a package may be ({MAX_PACKAGE_BYTES} bytes)")
    return data


def _text_of(file: Path) -> str:
    try:
        return _bytes_of(file)[:1000].decode()
    except UnicodeDecodeError as error:
        raise FileUnreadable(str(file), "it is no text") from error


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


def _tell(command: str, reply: Any, lines: Iterator[str], *, as_json: bool) -> int:
    if as_json:
        print_json(command, fields_of(reply))
    else:
        echo("\n".join(lines))
    return 0


def _told(command: str, detail: ExtensionDetail, done: str, *, as_json: bool) -> int:
    """One extension after an order: the line that says what it is now, and what comes next."""
    if as_json:
        print_json(command, fields_of(detail))
        return 0
    info = detail.info
    word = done or f"is {info.state}"
    echo(f"{printable(info.id)} {printable(info.version)} {printable(word)}  {printable(info.detail)}".rstrip())
    if step := next_step(info, detail.grants):
        echo_error(as_typed(f"next: `{step}`"))
    return 0
