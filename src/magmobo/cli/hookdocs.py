"""The map of hook points in docs/architecture.md, written from the catalogue and the adapters:
`python -m magmobo.cli.hookdocs docs/architecture.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from magmobo.contracts.hooks import HOOK_POINTS

BEGIN, END = "<!-- hook points: begin -->", "<!-- hook points: end -->"
HOW = "python -m magmobo.cli.hookdocs docs/architecture.md"


def table_lines() -> Iterator[str]:
    """One row a hook point: what it is, who leads there, who offers it."""
    from magmobo.extensions.adapters.catalogue import hook_map

    yield "| hook point | phase | adapter | component | capability | when it fails | |"
    yield "|---|---|---|---|---|---|---|"
    for place in hook_map():
        spec = HOOK_POINTS[place.point]
        fails = {"deny": "closed", "skip": "open", "fallback": "open"}[spec.on_error]
        about = f"planned: {spec.planned}" if spec.planned else spec.summary
        adapter = f"`extensions/adapters/{place.adapter}.py`"
        cells = (f"`{spec.name}`", spec.phase, adapter, place.component, f"`{spec.capability}`", fails, about)
        yield f"| {' | '.join(cells)} |"


def written(page: str) -> str:
    """The page with the map as it is now. Raises: ValueError when the page has no place for it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return "\n".join([before + BEGIN, *table_lines(), END + after])


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        Path(argument).write_text(written(Path(argument).read_text(encoding="utf-8")), encoding="utf-8")
