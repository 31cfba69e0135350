"""Commands that ask the running node: `down`, `status`, `kernel:status`, `component:list`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from magmobo.cli import options
from magmobo.cli.context import ask_node
from magmobo.cli.output import as_typed, print_json, printable

if TYPE_CHECKING:
    from magmobo.contracts.planes import ComponentStatus, NodeStatus

DEGRADED = 4
_COLOURS = {"running": "green", "ready": "green", "healthy": "green", "failed": "red", "unhealthy": "red"}


@click.command()
@options.data_dir
@options.timeout(60.0)
@options.as_json
def down(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """Stop the node and wait until it is gone."""
    stopped = ask_node(data_dir, timeout_s, lambda client: client.stop())
    if as_json:
        print_json("down", {"pid": stopped.pid, "stopped": True})
    else:
        click.echo(f"the node (pid {stopped.pid}) has stopped")
    return 0


@click.command()
@options.data_dir
@options.timeout(10.0)
@options.as_json
def status(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """How the node is, and its addresses. Exit 0: ready; 3: no node; 4: something is wrong."""
    node = ask_node(data_dir, timeout_s, lambda client: client.status())
    if as_json:
        announced = {"urls": dict(node.urls), "examples": list(node.examples), "notices": list(node.notices)}
        print_json("status", node_fields(node) | announced)
        return exit_code_of(node)
    running = sum(component.state == "running" for component in node.components)
    click.echo(f"{_styled(node.state)}  {running} of {len(node.components)} components run  {_head(node)}")
    for component in node.components:
        if not _is_fine(component):
            click.echo(_component_line(component))
    for label, url in node.urls.items():
        click.echo(f"  {printable(label):<10}{as_typed(printable(url))}")
    for label, lines in (("try", node.examples), ("note", node.notices)):
        for line in lines:
            click.echo(f"  {label:<10}{as_typed(printable(line))}")
    return exit_code_of(node)


@click.command("kernel:status")
@options.data_dir
@options.timeout(10.0)
@options.as_json
def kernel_status(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """State of the node and of each component. Exit 0: all run; 3: no node; 4: something is wrong."""
    node = ask_node(data_dir, timeout_s, lambda client: client.status())
    if as_json:
        print_json("kernel:status", node_fields(node))
        return exit_code_of(node)
    click.echo(f"{_styled(node.state)}  {_head(node)}")
    for component in node.components:
        click.echo(_component_line(component))
    return exit_code_of(node)


@click.command("component:list")
@options.data_dir
@options.timeout(10.0)
@options.as_json
def component_list(data_dir: Path | None, timeout_s: float, as_json: bool) -> int:
    """The components, a line each. Exit as `kernel:status`."""
    node = ask_node(data_dir, timeout_s, lambda client: client.status())
    if as_json:
        components = [component_fields(component) | {"detail": component.detail} for component in node.components]
        print_json("component:list", {"components": components})
        return exit_code_of(node)
    for component in node.components:
        click.echo(_component_line(component))
    return exit_code_of(node)


def exit_code_of(node: NodeStatus) -> int:
    """0 when the node is ready and every component runs and is well, else 4."""
    return 0 if node.state == "ready" and all(map(_is_fine, node.components)) else DEGRADED


def node_fields(node: NodeStatus) -> dict[str, Any]:
    """The fields of `kernel:status --json`; scripts rely on them."""
    return {
        "instance_id": node.instance_id,
        "state": node.state,
        "environment": node.environment,
        "version": node.version,
        "uptime_s": round(node.uptime_s, 3),
        "components": [component_fields(component) for component in node.components],
    }


def component_fields(component: ComponentStatus) -> dict[str, Any]:
    """The fields of one component in `kernel:status --json`."""
    return {
        "name": component.name,
        "state": component.state,
        "health": component.health,
        "restarts": component.restarts,
        "since": component.since,
    }


def _is_fine(component: ComponentStatus) -> bool:
    return component.state == "running" and component.health not in ("degraded", "unhealthy")


def _head(node: NodeStatus) -> str:
    return f"version {node.version}, {node.environment}, up {node.uptime_s:.0f} s, instance {node.instance_id}"


def _component_line(component: ComponentStatus) -> str:
    state, health = _styled(f"{component.state:<12}"), _styled(f"{component.health:<10}")
    restarts = f"{component.restarts} restarts" if component.restarts else ""
    line = f"  {component.name:<12}{state}{health}since {component.since}  {restarts}  {printable(component.detail)}"
    return line.rstrip()


def _styled(word: str) -> str:
    return click.style(word, fg=_COLOURS.get(word.strip(), "yellow"))
