"""Which topics a pattern means.

A topic exists because a subclass of `Event` declares it. Patterns are words joined by dots; `*` stands for one word,
`**` (only at the end) for any number of them, also none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Generic, TypeVar

from magmobo.kernel.bus.errors import BadPattern

S = TypeVar("S")
_WORD = r"[a-z][a-z0-9_]*"


def is_topic(name: str) -> bool:
    """Whether `name` is lower-case words joined by dots."""
    return all(re.fullmatch(_WORD, word) for word in name.split("."))


@lru_cache(maxsize=256)  # each topic is held against the same few patterns when a bus is made
def parse_pattern(pattern: str) -> tuple[str, ...]:
    """The words of a pattern. Raises: BadPattern."""
    words = tuple(pattern.split("."))
    for position, word in enumerate(words):
        is_last = position == len(words) - 1
        if not (re.fullmatch(_WORD, word) or word == "*" or (word == "**" and is_last)):
            raise BadPattern(pattern)
    return words


def means(words: tuple[str, ...], topic: str) -> bool:
    """Whether a parsed pattern means a topic."""
    names = topic.split(".")
    if words[-1] == "**":
        words = words[:-1]
        names = names[: len(words)]
    return len(words) == len(names) and all(word in ("*", name) for word, name in zip(words, names, strict=True))


class _Node(Generic[S]):
    __slots__ = ("children", "deep", "here")

    def __init__(self) -> None:
        self.children: dict[str, _Node[S]] = {}
        self.here: list[S] = []
        self.deep: list[S] = []

    @property
    def is_empty(self) -> bool:
        return not (self.children or self.here or self.deep)


class PatternTrie(Generic[S]):
    """Values filed under patterns. Asked only when subscriptions change, never when an event is emitted."""

    def __init__(self) -> None:
        self._root: _Node[S] = _Node()

    def add(self, words: tuple[str, ...], value: S) -> None:
        """File `value` under a parsed pattern."""
        node = self._root
        for word in words:
            if word == "**":
                node.deep.append(value)
                return
            node = node.children.setdefault(word, _Node())
        node.here.append(value)

    def remove(self, words: tuple[str, ...], value: S) -> None:
        """Forget `value` and every node that only it needed. Raises: ValueError when it is not there."""
        self._remove(self._root, words, value)

    def _remove(self, node: _Node[S], words: tuple[str, ...], value: S) -> None:
        if not words:
            node.here.remove(value)
        elif words[0] == "**":
            node.deep.remove(value)
        elif (child := node.children.get(words[0])) is None:
            raise ValueError("not filed here")
        else:
            self._remove(child, words[1:], value)
            if child.is_empty:
                del node.children[words[0]]

    def match(self, topic: str) -> list[S]:
        """Every value whose pattern means `topic`, in no particular order."""
        return list(self._match(self._root, topic.split(".")))

    def _match(self, node: _Node[S], words: list[str]) -> Iterator[S]:
        yield from node.deep
        if not words:
            yield from node.here
            return
        for key in (words[0], "*"):
            if (child := node.children.get(key)) is not None:
                yield from self._match(child, words[1:])

    @property
    def is_empty(self) -> bool:
        """Whether nothing is filed; a trie that is empty holds no node but its root."""
        return self._root.is_empty
