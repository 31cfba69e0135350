"""Commands that work without a node: `doctor` and `detach`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from magmobo.cli import options
from magmobo.cli.context import database_of, insist_on_operator, settings_of
from magmobo.cli.output import as_typed, print_json, printable

if TYPE_CHECKING:
    from magmobo.admin.data_folder import DataFolder
    from magmobo.admin.offline import Check, Traces
    from magmobo.contracts.secret import Secret


@click.command()
@click.argument("dsn", required=False)
@options.data_dir
@options.timeout(30.0)
@options.as_json
def doctor(dsn: str | None, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Check the data folder, the node, and what the database at DSN allows. Exit 0: all is well; 1: see the lines."""
    settings = settings_of(data_dir, dsn)
    checks = asyncio.run(_examine(settings.folder, database_of(data_dir, dsn, settings), timeout_s))
    all_well = all(check.ok for check in checks)
    if as_json:
        fields = ("name", "ok", "detail", "remedy")
        print_json("doctor", {"ok": all_well, "checks": [{f: getattr(check, f) for f in fields} for check in checks]})
        return 0 if all_well else 1
    for check in checks:
        mark = click.style("ok  ", fg="green") if check.ok else click.style("FAIL", fg="red")
        click.echo(f"{mark} {check.name}: {as_typed(printable(check.detail))}")
        if not check.ok and check.remedy:
            click.echo(f"     next: {as_typed(printable(check.remedy))}")
    return 0 if all_well else 1


@click.command()
@click.argument("dsn", required=False)
@options.data_dir
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.timeout(60.0)
@options.as_json
def detach(dsn: str | None, data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool) -> int:
    """Remove everything MagMoBo made in the database at DSN. Your own tables are not touched."""
    from magmobo.cli.errors import DatabaseNotNamed

    if not dry_run:
        insist_on_operator("detach")
    settings = settings_of(data_dir, dsn)
    database = database_of(data_dir, dsn, settings)
    if database is None:
        raise DatabaseNotNamed
    found = asyncio.run(_plan(settings.folder, database, timeout_s, even_if_running=dry_run))
    if not dry_run and found.objects:
        _confirm(found.objects, yes=yes)
        found = asyncio.run(_apply(database, timeout_s))
    if as_json:
        print_json("detach", {"removed": not dry_run, "objects": list(found.objects), "kept": list(found.kept)})
        return 0
    for line in found.objects:
        click.echo(f"{'would remove' if dry_run else 'removed'} {printable(line)}")
    for line in found.kept:
        click.echo(f"kept {printable(line)}")
    if not found.objects:
        click.echo("nothing of MagMoBo's is in this database")
    return 0


async def _examine(folder: DataFolder, dsn: Secret | None, timeout_s: float) -> Sequence[Check]:
    from magmobo.admin.offline import Check, examine_database, examine_folder
    from magmobo.contracts.errors import MagError

    checks = list(await examine_folder(folder))
    if dsn is None:
        return checks
    try:
        async with _deadline(timeout_s):
            checks += await examine_database(dsn)
    except MagError as error:
        checks.append(Check("database", False, f"{error} [{error.code}]", error.next_step()))
    return checks


async def _plan(folder: DataFolder, dsn: Secret, timeout_s: float, *, even_if_running: bool) -> Traces:
    from magmobo.admin import offline
    from magmobo.admin.client import AdminClient
    from magmobo.admin.errors import NodeNotRunning
    from magmobo.cli.errors import NodeStillRuns

    if not even_if_running:
        with suppress(NodeNotRunning):  # as it should be
            await asyncio.to_thread(AdminClient(folder, timeout_s=timeout_s).status)
            raise NodeStillRuns(folder.holder_pid())
    async with _deadline(timeout_s):
        return await offline.detach(dsn, dry_run=True)


async def _apply(dsn: Secret, timeout_s: float) -> Traces:
    from magmobo.admin import offline

    async with _deadline(timeout_s):
        return await offline.detach(dsn, dry_run=False)


@asynccontextmanager
async def _deadline(timeout_s: float) -> AsyncIterator[None]:
    """Raises: DeadlineExceeded."""
    from magmobo.contracts.errors import DeadlineExceeded

    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded("the database", timeout_s) from error


def _confirm(found: Sequence[str], *, yes: bool) -> None:
    """Raises: NotConfirmed."""
    from magmobo.cli.errors import NotConfirmed

    if yes:
        return
    for line in found:
        click.echo(f"will remove {printable(line)}", err=True)
    if not sys.stdin.isatty() or not click.confirm("Remove them?", err=True):
        raise NotConfirmed
