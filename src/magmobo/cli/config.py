"""Commands about the settings of a running node: `config:show`, `:diff`, `:reload`, `:rollback`, `:history`, `:set`,
`:unset`; and `config:diff --from … --to …`, which asks no node.

What changes the running settings asks the node for its plan first (the dry run of the same command) and shows it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from magmobo.cli import options, plans
from magmobo.cli.context import ask, client_of, fields_of
from magmobo.cli.output import as_typed, echo, echo_error, print_json, printable, terminal_width
from magmobo.contracts.commands import Command
from magmobo.contracts.configuration import (
    ConfigHistory,
    ConfigTree,
    ConfigVersions,
    DiffConfig,
    ReloadConfig,
    ReloadOutcome,
    ReloadPlan,
    RollbackConfig,
    SetConfig,
    ShowConfig,
    UnsetConfig,
)

if TYPE_CHECKING:
    from magmobo.admin.client import AdminClient

_MAX_TTL_S = 2_592_000.0


@click.command("config:show")
@click.argument("key", default="")
@click.option("--origin", is_flag=True, help="Also who set each: file and line, variable, command line, default.")
@options.data_dir
@options.timeout(10.0)
@options.as_json
def show(key: str, origin: bool, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """The settings that count in the running node: all of them, or KEY and what is below it."""
    client = client_of(data_dir, timeout_s)
    tree = ask(client, ShowConfig(prefix=key), ConfigTree)
    if key and not tree.entries:
        raise _unknown(key, ask(client, ShowConfig(), ConfigTree))
    if as_json:
        print_json("config:show", fields_of(tree))
    else:
        echo("\n".join(plans.tree_lines(tree, origin=origin, width=terminal_width())))
    return 0


def _unknown(key: str, everything: ConfigTree) -> Exception:
    from magmobo.cli.errors import SettingUnknown

    names = {entry.key for entry in everything.entries}
    names |= {name.rpartition(".")[0] for name in names}
    return SettingUnknown(key, next(iter(difflib.get_close_matches(key, sorted(names), n=1)), None))


@click.command("config:diff")
@click.option("--version", type=click.IntRange(min=1), help="What going back to this version would change.")
@click.option("--from", "before", metavar="ENVIRONMENT", help="Compare the files of this environment …")
@click.option("--to", "after", metavar="ENVIRONMENT", help="… with those of this one; asks no node.")
@options.accept_removed
@options.data_dir
@options.timeout(30.0)
@options.as_json
def diff(
    version: int | None,
    before: str | None,
    after: str | None,
    accept_removed: bool,
    data_dir: Path | None,
    timeout_s: float,
    as_json: bool,
) -> int:
    """What a reload would change now, and what that takes. Changes nothing and asks no component."""
    if before is not None or after is not None:
        if version is not None or accept_removed:
            raise click.UsageError("--from and --to compare files: leave out --version and --accept-removed")
        from magmobo.cli.configcheck import show_differences

        return show_differences(before, after, data_dir, as_json=as_json)
    question = DiffConfig(version=version, accept_removed=accept_removed)
    plan = ask(client_of(data_dir, timeout_s), question, ReloadPlan)
    if as_json:
        print_json("config:diff", fields_of(plan))
    else:
        echo("\n".join(plans.plan_lines(plan)))
    return 0


@click.command("config:reload")
@options.accept_removed
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def reload(
    accept_removed: bool, data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool
) -> int:
    """Read the settings again and apply them, wholly or not at all. --dry-run also asks the components."""
    change = _Change(ReloadConfig(accept_removed=accept_removed), "Apply this?", dry_run, yes, as_json)
    return change.carried_out(client_of(data_dir, timeout_s))


@click.command("config:rollback")
@click.argument("version", type=click.IntRange(min=1), required=False)
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def rollback(
    version: int | None, data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool
) -> int:
    """Go back to VERSION, or to the one before this. It counts until the files change."""
    change = _Change(RollbackConfig(version=version), "Go back to it?", dry_run, yes, as_json)
    further = "next: `mag config:history` lists the versions; `mag config:rollback VERSION` goes further back"
    return change.carried_out(client_of(data_dir, timeout_s), if_same=further if version is None else "")


@click.command("config:set")
@click.argument("key")
@click.argument("value")
@click.option(
    "--ttl",
    "ttl_s",
    type=options.Duration(max_s=_MAX_TTL_S),
    help="For so long only, such as 90s, 10m or 2h; then the layers below count again.",
)
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def set_(
    key: str,
    value: str,
    ttl_s: float | None,
    data_dir: Path | None,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Set KEY above every file, until `config:unset` or for --ttl. A secret is set by reference: vault:name."""
    change = _Change(SetConfig(key=key, value=value, ttl_s=ttl_s), "Set it?", dry_run, yes, as_json)
    back = f"until `mag config:unset {printable(key)}`" if ttl_s is None else f"for {ttl_s:g} s"
    return change.carried_out(client_of(data_dir, timeout_s), more=f"it is set {back}")


@click.command("config:unset")
@click.argument("key")
@options.data_dir
@options.dry_run
@options.yes
@options.timeout(120.0)
@options.as_json
def unset(key: str, data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool) -> int:
    """Take back what `config:set` said of KEY; the layers below count again."""
    change = _Change(UnsetConfig(key=key), "Take it back?", dry_run, yes, as_json)
    return change.carried_out(client_of(data_dir, timeout_s))


class _Change:
    """A command that changes the running settings: its plan is shown, confirmed where somebody can, and carried out."""

    def __init__(self, command: Command, question: str, dry_run: bool, yes: bool, as_json: bool) -> None:
        self._command, self._question = command, question
        self._dry_run, self._yes, self._as_json = dry_run, yes, as_json

    def carried_out(self, client: AdminClient, *, more: str = "", if_same: str = "") -> int:
        """Exit code 0. `more`: what else is to be said once it counts, `if_same`: where nothing differed.

        Raises: NotConfirmed.
        """
        if self._as_json:
            print_json(self._command.name, fields_of(self._answered(client)))
            return 0
        planned = self._planned(client, echo)
        outcome = planned if self._dry_run else self._asked(client, dry_run=False)
        if outcome.plan != planned.plan:
            echo("the settings changed again meanwhile; this took effect:")
            echo("\n".join(plans.plan_lines(outcome.plan)))
        echo("\n".join(plans.outcome_lines(outcome, dry_run=self._dry_run)))
        if more and not self._dry_run:
            echo(as_typed(more))
        if if_same and not (outcome.plan.changes or outcome.plan.waiting):
            echo(as_typed(if_same))
        return 0

    def _answered(self, client: AdminClient) -> ReloadOutcome:
        """For programs: who passes --yes, or cannot answer, waits for no plan."""
        if not self._dry_run and not self._yes and sys.stdin.isatty():
            self._planned(client, echo_error)
        return self._asked(client, dry_run=self._dry_run)

    def _planned(self, client: AdminClient, tell: Callable[[str], None]) -> ReloadOutcome:
        """The dry run, told, and confirmed when it is to be followed by the deed."""
        planned = self._asked(client, dry_run=True)
        tell("\n".join(plans.plan_lines(planned.plan)))
        if planned.plan.changes and not self._dry_run:
            options.confirm(self._question, yes=self._yes)
        return planned

    def _asked(self, client: AdminClient, *, dry_run: bool) -> ReloadOutcome:
        return ask(client, self._command, ReloadOutcome, dry_run=dry_run)


@click.command("config:history")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many of the newest.")
@options.data_dir
@options.timeout(10.0)
@options.as_json
def history(limit: int, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """The versions of the settings that counted, newest first: since when, by whom, and what changed."""
    found = ask(client_of(data_dir, timeout_s), ConfigHistory(limit=limit), ConfigVersions)
    if as_json:
        print_json("config:history", fields_of(found))
    else:
        echo("\n".join(plans.history_lines(found)) if found.versions else "no version has been kept yet")
    return 0
