"""Finds any of several thousand texts in another one, in a time that does not depend on how many they are.

Every needle is entered under three four-letter pieces of its beginning, and a text is looked at in every third place:
one of the pieces then stands at one of those places. Boundary: pure, knows nothing of secrets. Entering a needle while
another thread searches is safe.
"""

from __future__ import annotations

MIN_CHARS = 6
"""The shortest needle that can be found: the last piece ends there."""

_PIECE, _STEP = 4, 3
_CUT_CHARS = 10  # of a needle whose rest is not there; behind an ellipsis `MIN_CHARS` are enough


class Needles:
    """The texts to look for."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[tuple[int, str]]] = {}
        self._known: set[str] = set()

    def add(self, needle: str) -> None:
        """Look for `needle` from now on. Shorter ones than `MIN_CHARS` are not looked for."""
        if len(needle) < MIN_CHARS or needle in self._known:
            return
        self._known.add(needle)
        for offset in range(_STEP):
            self._pieces.setdefault(needle[offset : offset + _PIECE], []).append((offset, needle))

    def replaced(self, text: str, by: str) -> str:
        """`text` with `by` in the place of every needle, and of one whose rest was cut off at the end of the text.

        Needles that overlap are replaced as one.
        """
        pieces = self._pieces
        places = [at for at in range(0, len(text) - _PIECE + 1, _STEP) if text[at : at + _PIECE] in pieces]
        spans = self._spans(text, places) if places else []
        if not spans:
            return text
        parts: list[str] = []
        done = 0
        for start, stop in _joined(spans):
            parts += (text[done:start], by)
            done = stop
        return "".join([*parts, text[done:]])

    def _spans(self, text: str, places: list[int]) -> list[tuple[int, int]]:
        end = len(text.rstrip("…"))
        least_chars = _CUT_CHARS if end == len(text) else MIN_CHARS
        spans = []
        for at in places:
            for offset, needle in self._pieces[text[at : at + _PIECE]]:
                start = at - offset
                if start < 0:
                    continue
                if text.startswith(needle, start):
                    spans.append((start, start + len(needle)))
                elif least_chars <= end - start < len(needle) and needle.startswith(text[start:end]):
                    spans.append((start, end))
        return spans


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
