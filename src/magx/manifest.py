"""What the code needs to know of `manifest.json` beside it: which names it must bind, and whether both say the same.

Boundary: the node has checked the manifest as a whole; here it is only read, and compared with the decorators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from magx.extension import Extension, Handler


class Mismatch(Exception):
    """The code and its manifest do not say the same; the text has a line for each difference."""


def read(folder: str) -> dict[str, Any] | None:
    """The manifest of the extension in this folder; None when there is none. Raises: ValueError."""
    try:
        with open(f"{folder}/manifest.json", "rb") as file:  # noqa: PTH123 - see loading.py
            data = file.read()
    except FileNotFoundError:
        return None
    manifest: dict[str, Any] = msgspec.json.decode(data, type=dict)
    return manifest


def names(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Handlers that the code must have."""
    return frozenset(
        [
            *(f"hook:{one['point']}" for one in manifest.get("hooks", ())),
            *(f"event:{one['name']}" for one in manifest.get("events", ())),
            *(f"endpoint:{one['method']} {one['path']}" for one in manifest.get("endpoints", ())),
            *(f"command:{one['name']}" for one in manifest.get("commands", ())),
            *(f"job:{one['name']}" for one in manifest.get("jobs", ())),
        ]
    )


def is_named(handler: str) -> bool:
    """Whether the manifest has to name this handler; the others are the author's choice."""
    return handler != "health" and not handler.startswith("gap:")


def join(extension: Extension, manifest: Mapping[str, Any]) -> None:
    """Give handlers that were bound to a topic the names of its subscriptions, and compare the rest.

    Raises: Mismatch, with every difference; the handlers are then as they were.
    """
    handlers: dict[str, Handler] = {}
    for name, handler in extension.handlers.items():
        for resolved in _resolved(name, manifest):
            if resolved in handlers:
                raise Mismatch(f"{resolved} is bound twice, once by its topic")
            handlers[resolved] = handler
    wanted, bound = names(manifest), {name for name in handlers if is_named(name)}
    problems = [f"the manifest has {name}, the code does not" for name in sorted(wanted - bound)]
    problems += [f"the code has {name}, the manifest does not" for name in sorted(bound - wanted)]
    problems += [
        f"the code has {name}, the manifest has no such subscription"
        for name in sorted(handlers)
        if name.startswith("gap:") and f"event:{name[4:]}" not in wanted
    ]
    problems += _contradictions(handlers, manifest)
    if problems:
        raise Mismatch("\n".join(problems))
    extension.handlers = handlers


def _resolved(name: str, manifest: Mapping[str, Any]) -> list[str]:
    kind, _, topic = name.partition(":")
    if kind not in ("event", "gap") or "." not in topic:  # a subscription's name has no dot, a topic has one
        return [name]
    return [f"{kind}:{one['name']}" for one in manifest.get("events", ()) if one["topic"] == topic] or [name]


def _contradictions(handlers: Mapping[str, Handler], manifest: Mapping[str, Any]) -> list[str]:
    bindings = {f"hook:{one['point']}": {"priority": 50, **one} for one in manifest.get("hooks", ())}
    bindings |= {f"event:{one['name']}": {"where": {}, **one} for one in manifest.get("events", ())}
    return [
        f"{name}: the code says {what} {value!r}, the manifest {bindings[name][what]!r}"
        for name, handler in sorted(handlers.items())
        if name in bindings
        for what, value in handler.said.items()
        if bindings[name][what] != value
    ]
