"""Who needs whom, as data and as text for Graphviz.

Source: https://graphviz.org/doc/info/lang.html (quoted identifiers).
"""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.operations import Graph, GraphEdge

_STYLES = {"needs": "solid", "wants": "dashed", "after": "dotted"}


def graph_of(levels: Sequence[Sequence[str]], edges: Sequence[GraphEdge]) -> Graph:
    """The graph of components that come up level by level."""
    return Graph(levels=levels, edges=edges, dot=_dot(levels, edges))


def _dot(levels: Sequence[Sequence[str]], edges: Sequence[GraphEdge]) -> str:
    lines = ["digraph components {", "  rankdir=RL;", "  node [shape=box];"]
    for level in levels:
        lines.append(f"  {{ rank=same; {' '.join(f'{_quoted(name)};' for name in level)} }}")
    for edge in edges:
        traits = f"style={_STYLES[edge.kind]}"
        if edge.protocol:
            traits += f", label={_quoted(edge.protocol)}"
        lines.append(f"  {_quoted(edge.consumer)} -> {_quoted(edge.provider)} [{traits}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    """A double-quoted identifier. A backslash is doubled: in a label Graphviz would read `\\n` as a line break."""
    shown = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else " " for letter in shown) + '"'
