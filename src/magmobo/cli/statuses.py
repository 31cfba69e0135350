"""A node's status as lines for people and as the fields that scripts rely on.

Boundary: no I/O, and nothing that is slow to import: these functions are on the way of `mag kernel:status`. A status is
what JSON made of `contracts.planes.NodeStatus`. Raises: KeyError or TypeError for what is no status.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from magmobo.cli.output import as_typed, printable, styled

DEGRADED = 4
_COLOURS = {
    "running": "green", "ready": "green", "healthy": "green",
    "failed": "red", "quarantined": "red", "unhealthy": "red",
}  # fmt: skip
_FIELDS = ("name", "state", "health", "restarts", "since")
Fields = Mapping[str, Any]


def exit_code_of(node: Fields) -> int:
    """0 when the node is ready and every component runs and is well, else 4."""
    return 0 if node["state"] == "ready" and all(map(is_fine, node["components"])) else DEGRADED


def is_fine(component: Fields) -> bool:
    """Whether a component does all that it is there for."""
    return component["state"] in ("running", "disabled") and component["health"] not in ("degraded", "unhealthy")


def kernel_status_fields(node: Fields) -> dict[str, Any]:
    """The fields of `kernel:status --json` (CONTRACTS section 4)."""
    return {
        "instance_id": node["instance_id"],
        "state": node["state"],
        "environment": node["environment"],
        "version": node["version"],
        "uptime_s": round(node["uptime_s"], 3),
        "components": [{name: component[name] for name in _FIELDS} for component in node["components"]],
    }


def status_fields(node: Fields) -> dict[str, Any]:
    """The fields of `status --json`: with addresses, commands to paste and notices."""
    announced = {name: node[name] for name in ("urls", "examples", "notices")}
    return kernel_status_fields(node) | announced


def component_list_fields(node: Fields) -> dict[str, Any]:
    """The fields of `component:list --json`: with the reason when one is not well."""
    names = (*_FIELDS, "detail", "essential")
    return {"components": [{name: component[name] for name in names} for component in node["components"]]}


def kernel_status_lines(node: Fields) -> Iterator[str]:
    """The node, then each component."""
    yield f"{coloured(node['state'])}  {_head(node)}"
    yield from component_list_lines(node)


def component_list_lines(node: Fields) -> Iterator[str]:
    """A line for each component."""
    for component in node["components"]:
        yield component_line(component)


def status_lines(node: Fields) -> Iterator[str]:
    """The node, who is not well or left out, and what it offers."""
    running = sum(component["state"] == "running" for component in node["components"])
    yield f"{coloured(node['state'])}  {running} of {len(node['components'])} components run  {_head(node)}"
    for component in node["components"]:
        if not is_fine(component):
            yield component_line(component)
    yield from _off_lines(node["components"])
    for label, url in node["urls"].items():
        yield f"  {printable(label):<10}{as_typed(printable(url))}"
    for label, lines in (("try", node["examples"]), ("note", node["notices"])):
        for line in lines:
            yield f"  {label:<10}{as_typed(printable(line))}"


def component_line(component: Fields) -> str:
    """Name, state, health, since when, restarts, and the reason when it is not well."""
    state, health = coloured(f"{component['state']:<12}"), coloured(f"{health_word(component):<10}")
    restarts = counted(component["restarts"], "restart") if component["restarts"] else ""
    name, since, detail = (printable(component[key]) for key in ("name", "since", "detail"))
    reason = "" if detail == component["state"] else detail
    return f"  {name:<12}{state}{health}" + "  ".join(filter(None, (f"since {since}", restarts, reason)))


def health_word(component: Fields) -> str:
    """Its health for people: nobody asks a component that does not run, nor one that has only just come up."""
    if component["health"] != "unknown":
        return str(component["health"])
    return "unchecked" if component["state"] == "running" else "-"


def counted(count: int, thing: str) -> str:
    """`1 restart`, `2 restarts`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _off_lines(components: Iterable[Fields]) -> Iterator[str]:
    """Who is kept from starting, a line for each reason."""
    names: dict[str, list[str]] = {}
    for component in components:
        if component["state"] == "disabled":
            names.setdefault(component["detail"], []).append(component["name"])
    for reason, group in names.items():
        yield f"  {'off':<10}{printable(', '.join(group))}" + (f" ({printable(reason)})" if reason else "")


def coloured(word: str) -> str:
    """A state or a health in its colour."""
    return styled(printable(word), _COLOURS.get(word.strip(), "yellow"))


def _head(node: Fields) -> str:
    version, environment, instance_id = (printable(node[key]) for key in ("version", "environment", "instance_id"))
    return f"version {version}, {environment}, up {node['uptime_s']:.0f} s, instance {instance_id}"
