"""Settings, what a change of them would do, and their history, as lines for people.

Boundary: no I/O. Whoever made the answer has hidden the secrets; what it says is shown as it is, in one line each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from magmobo.cli.output import as_typed, printable, styled
from magmobo.cli.statuses import counted
from magmobo.contracts.configuration import (
    ConfigChange,
    ConfigEntry,
    ConfigTree,
    ConfigVersion,
    ConfigVersions,
    ReloadOutcome,
    ReloadPlan,
)
from magmobo.contracts.settings import Effect

_COLUMN_CHARS = (44, 32, 24, 16, 12)
_LINES_THAT_FIT = 0.9
_KEYS_SHOWN = 6
_EFFECTS = {
    Effect.LIVE: "live",
    Effect.COMPONENT: "component restart",
    Effect.NODE: "node restart",
}
_CORE = "core"


def tree_lines(tree: ConfigTree, *, origin: bool, width: int | None = None) -> Iterator[str]:
    """The settings, a line each; with `origin` also who set them and what a change of them takes.

    width: as of `table`.
    """
    yield f"version {tree.version}, {printable(tree.environment)}"
    rows = [_row(entry, origin=origin) for entry in tree.entries]
    yield from table([["key", "value", "set by", "change takes"], *rows] if origin else rows, width)
    if tree.held:
        yield "note: an older version was taken back; it counts until the files change"
    if tree.refused:
        yield f"note: the last reload did not take effect: {printable(tree.refused)}"
    if any(entry.waiting for entry in tree.entries):
        yield _after_a_restart()


def _row(entry: ConfigEntry, *, origin: bool) -> list[str]:
    about = [printable(entry.origin), _EFFECTS[entry.effect]] if origin else []
    return [printable(entry.key), value_text(entry.value, entry.is_secret), *about, " ".join(_remarks(entry))]


def _remarks(entry: ConfigEntry) -> Iterator[str]:
    if entry.reference:
        yield f"(from {printable(entry.reference)})"
    if entry.expires_at:
        yield f"(until {printable(entry.expires_at)})"
    if entry.waiting:
        yield "(another value waits for a restart of the node)"


def plan_lines(plan: ReloadPlan) -> Iterator[str]:
    """What would change, who takes it while it serves, who is restarted, and what waits."""
    if not plan.changes and not plan.waiting:
        yield "no setting differs"
        return
    if plan.changes:
        yield f"{counted(len(plan.changes), 'setting')} {'differs' if len(plan.changes) == 1 else 'differ'}"
        yield from change_lines(plan.changes)
    rows = (
        ("live", plan.live, "told while they serve"),
        ("restart", plan.restarts, "made anew, in this order"),
        ("waiting", plan.waiting, "count after a restart of the node only"),
    )
    for label, names, about in rows:
        if names:
            shown = styled(f"{label:<9}", "dim" if label == "live" else "yellow")
            yield f"  {shown}{', '.join(map(_named, names))}  ({about})"


def change_lines(changes: Sequence[ConfigChange]) -> Iterator[str]:
    """A line for each key that differs: from what to what, what that takes, and who says so."""
    yield from table(
        [
            [printable(change.key), _from_to(change), _EFFECTS[change.effect], printable(change.origin)]
            for change in changes
        ]
    )


def outcome_lines(outcome: ReloadOutcome, *, dry_run: bool) -> Iterator[str]:
    """What became of it; the plan has been shown before."""
    if dry_run:
        yield f"nothing was changed (--dry-run); version {outcome.version} counts"
    elif outcome.applied:
        yield f"version {outcome.version} counts now  ({outcome.duration_s * 1000:.0f} ms)"
    elif outcome.plan.waiting:
        yield f"nothing changes before a restart of the node; version {outcome.version} counts"
    else:
        yield f"there was nothing to change; version {outcome.version} counts"
    if outcome.plan.waiting and not dry_run:
        yield _after_a_restart()


def history_lines(history: ConfigVersions) -> Iterator[str]:
    """A line for each version that counted, or counts now."""
    rows = [
        [
            str(version.version),
            "now" if version.running else "",
            printable(version.at),
            printable(version.trigger),
            printable(version.actor),
            "  ".join(_about(version)),
        ]
        for version in history.versions
    ]
    yield from table([["version", "", "since", "cause", "who", "what changed"], *rows])


def _about(version: ConfigVersion) -> Iterator[str]:
    keys = [printable(key) for key in version.changed_keys[:_KEYS_SHOWN]]
    if more := len(version.changed_keys) - len(keys):
        keys.append(f"and {more} more")
    if keys:
        yield ", ".join(keys)
    if version.note:
        yield printable(version.note)
    if not version.restorable and not version.running:
        yield "(no longer kept)"


def value_text(value: Any, is_secret: bool = False) -> str:
    """A value as TOML would spell it, nearly; what stands for a secret (`***`, `vault:name`) is not quoted."""
    if value is None:
        return "unset"
    if is_secret and isinstance(value, str):
        return printable(value)
    return printable(json.dumps(value, ensure_ascii=False))


def _from_to(change: ConfigChange) -> str:
    old, new = (value_text(value, change.is_secret) for value in (change.old, change.new))
    return "changed" if change.is_secret and old == new else f"{old} -> {new}"


def _named(name: str) -> str:
    return "the node itself" if name == _CORE else printable(name)


def table(rows: Sequence[Sequence[str]], width: int | None = None) -> Sequence[str]:
    """Rows in columns; a cell wider than its column pushes the rest of its line to the right.

    width: of the terminal, None where there is none; all columns but the first are made narrower until most lines fit.
    """
    lines: list[str] = []
    for most in _COLUMN_CHARS:
        lines = list(_aligned(rows, most))
        if width is None or sum(len(line) <= width for line in lines) >= _LINES_THAT_FIT * len(lines):
            break
    return lines


def _aligned(rows: Sequence[Sequence[str]], most: int) -> Iterator[str]:
    longest = [max(map(len, cells)) for cells in zip_longest(*rows, fillvalue="")]
    widths = [min(_COLUMN_CHARS[0] if column == 0 else most, chars) for column, chars in enumerate(longest)]
    for row in rows:
        cells = [f"{cell:<{chars}}" for cell, chars in zip(row, widths, strict=False)]
        yield f"  {'  '.join(cells)}".rstrip()


def _after_a_restart() -> str:
    return as_typed("next: `mag down`, then `mag up`: what waits counts then")
