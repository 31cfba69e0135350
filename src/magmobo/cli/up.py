"""`mag up`: one node in the foreground, or the same node detached."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from magmobo.cli import options
from magmobo.cli.context import remember_log_dir, session
from magmobo.cli.output import as_typed, print_json, program, shortened

if TYPE_CHECKING:
    from magmobo.admin.data_folder import DataFolder
    from magmobo.cli.banner import Line
    from magmobo.kernel.known import KnownSecrets
    from magmobo.node.report import Ready
    from magmobo.node.settings import NodeOptions


@click.command()
@click.argument("dsn", required=False)
@click.option("--demo", metavar="flights|tasks", help="Load real data to look at, and replay it.")
@click.option("--speed", type=click.FloatRange(min=0), help="Simulated seconds per second of a demo's replay.")
@options.data_dir
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65_535), help="TCP port (default 8787; 0: any free one).")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Read this file instead of mag.toml.")
@click.option("--environment", help="Also read mag.ENVIRONMENT.toml.")
@click.option("--safe", is_flag=True, help="Start no component, and without what config:set set: the operators' door.")
@click.option("--only", multiple=True, metavar="NAME,...", help="Start these components and what they need.")
@click.option("--without", multiple=True, metavar="NAME,...", help="Leave out these components and what needs them.")
@options.accept_removed
@click.option("--background", is_flag=True, help="Return when the node is ready and leave it running.")
@options.timeout(300.0)
@options.as_json
@click.option("--report-to", type=int, hidden=True)
def up(
    dsn: str | None,
    demo: str | None,
    speed: float | None,
    data_dir: Path | None,
    host: str | None,
    port: int | None,
    config_file: Path | None,
    environment: str | None,
    safe: bool,
    only: tuple[str, ...],
    without: tuple[str, ...],
    accept_removed: bool,
    background: bool,
    timeout_s: float,
    as_json: bool,
    report_to: int | None,
) -> int:
    """Start a node on the database at DSN, or with one of its own. --timeout counts with --background only.

    DSN is a URL such as postgres://user@host/database; keep passwords in DATABASE_URL, PGPASSFILE or mag.toml.
    """
    from magmobo.node.settings import NodeOptions

    if speed is not None and demo is None:
        raise click.UsageError("--speed is for the replay of a demo: add --demo flights")
    if safe and (only or without):
        raise click.UsageError("--safe starts no component: leave out --only and --without")
    chosen = NodeOptions(
        data_dir=data_dir, dsn=dsn, demo=demo, speed=speed, host=host, port=port, config_file=config_file,
        environment=environment, safe=safe, only=_names("--only", only), without=_names("--without", without),
        accept_removed=accept_removed,
    )  # fmt: skip
    if report_to is not None:
        return _report_to(report_to, chosen)
    if background:
        from magmobo.cli.background import start_in_background

        show_ready(start_in_background(chosen, timeout_s), chosen, as_json=as_json, foreground=False)
        return 0
    from magmobo.kernel.known import KnownSecrets
    from magmobo.node.process import run_node

    run_node(
        chosen,
        announce=lambda ready: show_ready(ready, chosen, as_json=as_json, foreground=True),
        folder_ready=remember_log_dir,
        known=_remembered(KnownSecrets()),
    )
    return 0


def _remembered(known: KnownSecrets) -> KnownSecrets:
    """What the node learns is hidden in the errors that this command ends with."""
    session().hide = known.text
    return known


def _names(option: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a list option that may be given several times, each time with several names."""
    names = tuple(name for value in values for part in value.split(",") if (name := part.strip()))
    if values and not names:  # as when a shell variable is empty: never take it for "all of them"
        raise click.UsageError(f"{option} names no component")
    return names


def show_ready(ready: Ready, chosen: NodeOptions, *, as_json: bool, foreground: bool) -> None:
    """Print the banner, or one JSON object. A reader that has gone away stops no node."""
    from magmobo.cli.operate import node_fields

    with suppress(BrokenPipeError):
        if as_json:
            node = ready.status
            announced = {"urls": dict(node.urls), "examples": list(node.examples), "notices": list(node.notices)}
            facts = {"pid": ready.pid, "data_dir": ready.data_dir, "log_file": ready.log_file}
            token = {"admin_token": ready.admin_token} if ready.admin_token else {}
            print_json("up", node_fields(node) | announced | facts | {"ready_s": ready.ready_s} | token)
        else:
            _print_banner(ready, chosen, foreground=foreground)


def _print_banner(ready: Ready, chosen: NodeOptions, *, foreground: bool) -> None:
    from magmobo.cli.banner import banner

    folder = [] if chosen.data_dir is None else ["--data-dir", str(chosen.data_dir)]
    down = f"{program()} {shlex.join(['down', *folder])}"
    lines = banner(
        ready.status,
        ready_s=ready.ready_s,
        admin_token=ready.admin_token,
        stop_with=f"Ctrl-C or `{down}`" if foreground else f"`{down}`",
        log_file=shortened(ready.log_file),
    )
    # One write, so that whoever reads our output sees the whole banner or nothing of it.
    click.echo("\n".join(_styled(line) for line in lines))


def _styled(line: Line) -> str:
    if not line.label:
        return click.style(line.text, bold=True)
    return f"  {click.style(f'{line.label:<9} ', dim=True)}{as_typed(line.text)}"


def _report_to(descriptor: int, chosen: NodeOptions) -> int:
    """Run the node for a `mag up --background` that waits at the other end of a pipe."""
    from magmobo.admin.wire import Fault
    from magmobo.contracts.errors import MagError
    from magmobo.kernel.known import KnownSecrets
    from magmobo.node.process import run_node
    from magmobo.node.report import Report

    os.set_inheritable(descriptor, False)

    def report(what: Report) -> None:
        with suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
            pipe.write(what.encode())

    announced, known = False, _remembered(KnownSecrets())

    def announce(ready: Ready) -> None:
        nonlocal announced
        announced = True
        report(Report(ready=ready))

    try:
        run_node(chosen, announce=announce, folder_ready=_write_output_to, known=known)
    except MagError as error:
        if announced:
            raise
        report(Report(fault=Fault.of(error, known.text)))
        return error.exit_code
    return 0


def _write_output_to(folder: DataFolder) -> None:
    """From here on, whatever would go to a terminal goes to a file of the data folder."""
    remember_log_dir(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder.output_file, flags, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
