"""Commands about single components: show, restart, stop, start, disable, enable, register, unregister, graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from magmobo.cli import options, statuses
from magmobo.cli.context import ask, client_of, fields_of
from magmobo.cli.output import as_typed, echo, print_json, printable
from magmobo.cli.statuses import counted
from magmobo.cli.watch import repeated
from magmobo.contracts.commands import Command
from magmobo.contracts.operations import (
    ComponentDetail,
    ComponentGraph,
    ComponentList,
    DisableComponent,
    EnableComponent,
    Graph,
    RegisterComponent,
    RestartComponent,
    ShowComponent,
    StartComponent,
    StopComponent,
    UnregisterComponent,
)
from magmobo.contracts.planes import ComponentStatus

_name = click.argument("component")
_NEXT = {
    "quarantined": "mend the cause, then `mag component:start {}`",
    "stopped": "`mag component:start {}`",
}  # by state: how it comes up again


@click.command("component:show")
@_name
@options.data_dir
@options.timeout(10.0)
@options.watch
@options.as_json
def show(component: str, data_dir: Path | None, timeout_s: float, watch: bool, as_json: bool) -> int:
    """Everything the node knows about COMPONENT. Exit 0: it runs and is well; 4: it does not."""
    client = client_of(data_dir, timeout_s)

    def once() -> int:
        detail = ask(client, ShowComponent(component=component), ComponentDetail)
        if as_json:
            print_json("component:show", fields_of(detail))
        else:
            echo("\n".join(detail_lines(detail)))
        return 0 if statuses.is_fine(fields_of(detail.status)) else statuses.DEGRADED

    return repeated(once, watch=watch, as_json=as_json)


def detail_lines(detail: ComponentDetail) -> Iterator[str]:
    """One component for people."""
    yield statuses.component_line(fields_of(detail.status)).strip()
    if detail.caused_by:
        yield _row("caused by", detail.caused_by)
    yield _row("version", f"{detail.version}, from {detail.source}")
    lists: Sequence[tuple[str, Sequence[str]]] = (
        ("provides", detail.provides), ("needs", detail.needs), ("wants", detail.wants), ("after", detail.after),
        ("needed by", detail.needed_by), ("may", detail.capabilities),
    )  # fmt: skip
    for label, names in lists:
        if names:
            yield _row(label, ", ".join(names))
    for check in detail.checks:
        yield f"{_row('check', check.name)}  {statuses.coloured(check.status)}  {printable(check.detail)}".rstrip()
    for note in detail.restarts:
        yield _row("restarted", f"{note.at} by {note.by}, away {note.away_s:.1f} s: {note.reason}")
    yield _row("holds", f"{counted(detail.tasks, 'task')}, {counted(detail.subscriptions, 'subscription')}")
    yield _row("budget", f"{counted(detail.budget_left, 'restart')} left")
    if step := _NEXT.get(detail.status.state):
        yield as_typed(_row("next", step.format(detail.status.name)))


def _row(label: str, text: str) -> str:
    return f"  {label:<12}{printable(text)}"


class _Order:
    """An order to one component: the words for it, and the question before it when it takes something away."""

    def __init__(self, command: type[Command], infinitive: str, done: str, question: str = "") -> None:
        self.command, self.infinitive, self.done, self.question = command, infinitive, done, question


_ORDERS = (
    _Order(RestartComponent, "restart", "restarted"),
    _Order(StopComponent, "stop", "stopped", "Stop it, and leave those who need it waiting?"),
    _Order(StartComponent, "start", "started"),
    _Order(DisableComponent, "disable", "disabled", "Stop it, and keep it from starting again?"),
    _Order(EnableComponent, "enable", "enabled"),
)


def _order_command(order: _Order) -> click.Command:
    @click.command(order.command.name, help=f"{order.command.summary} --dry-run only says what would be done.")
    @_name
    @options.data_dir
    @options.dry_run
    @options.yes
    @options.timeout(120.0)
    @options.as_json
    def run(component: str, data_dir: Path | None, dry_run: bool, yes: bool, timeout_s: float, as_json: bool) -> int:
        client = client_of(data_dir, timeout_s)
        if order.question and not dry_run:
            options.confirm(f"{printable(component)}: {order.question}", yes=yes)
        build: Callable[..., Command] = order.command
        status = ask(client, build(component=component), ComponentStatus, dry_run=dry_run)
        return _tell(
            order.command.name, status, f"would {order.infinitive}" if dry_run else order.done, as_json=as_json
        )

    return run


restart, stop, start, disable, enable = (_order_command(order) for order in _ORDERS)


@click.command("component:register")
@click.argument("source")
@options.data_dir
@options.timeout(120.0)
@options.as_json
def register(source: str, data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Add the component SOURCE (`module:Class`, or the name of an installed one) to the running node and start it."""
    status = ask(client_of(data_dir, timeout_s), RegisterComponent(source=source), ComponentStatus)
    return _tell("component:register", status, "registered", as_json=as_json)


@click.command("component:unregister")
@_name
@options.data_dir
@options.yes
@options.timeout(120.0)
@options.as_json
def unregister(component: str, data_dir: Path | None, yes: bool, timeout_s: float, as_json: bool) -> int:
    """Stop COMPONENT and take it off the running node. Refused while another needs it."""
    client = client_of(data_dir, timeout_s)
    options.confirm(f"{printable(component)}: Take it off the node?", yes=yes)
    left = fields_of(ask(client, UnregisterComponent(component=component), ComponentList))
    if as_json:
        print_json("component:unregister", left)
        return 0
    echo(f"unregistered {printable(component)}; left:")
    for line in statuses.component_list_lines(left):
        echo(line)
    return 0


@click.command("component:graph")
@options.data_dir
@click.option("--dot", is_flag=True, help="As Graphviz reads it: `mag component:graph --dot | dot -Tsvg`.")
@options.timeout(10.0)
@options.as_json
def graph(data_dir: Path | None, dot: bool, timeout_s: float, as_json: bool) -> int:
    """Who comes up after whom, level by level, and who needs whom for what."""
    if dot and as_json:
        raise click.UsageError("--dot is also a field of --json: choose one")
    found = ask(client_of(data_dir, timeout_s), ComponentGraph(), Graph)
    if as_json:
        print_json("component:graph", fields_of(found))
    else:
        echo(found.dot.rstrip("\n") if dot else "\n".join(graph_lines(found)))
    return 0


def graph_lines(found: Graph) -> Iterator[str]:
    """The levels, then the edges."""
    for number, level in enumerate(found.levels, 1):
        yield f"  {number:<4}{printable(', '.join(level))}"
    for edge in found.edges:
        what = f" ({edge.protocol})" if edge.protocol else ""
        yield f"  {printable(f'{edge.consumer} {edge.kind} {edge.provider}{what}')}"


def _tell(command: str, status: ComponentStatus, done: str, *, as_json: bool) -> int:
    if as_json:
        print_json(command, fields_of(status))
    else:
        now = [statuses.coloured(word) for word in (status.state, status.health) if word not in ("unknown", done)]
        detail = [printable(status.detail)] if status.detail not in ("", status.state) else []
        echo(f"{done} {printable(status.name)}" + (f"; it is {', '.join([*now, *detail])}" if now or detail else ""))
    return 0
