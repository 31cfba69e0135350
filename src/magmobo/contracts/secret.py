"""A value that must never be shown."""

from __future__ import annotations

HIDDEN = "***"
"""What is written in the place of a secret."""


class Secret:
    """Holds a secret string. Text, repr, JSON and pickles of it show `***`; `reveal()` is the only way in."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself; call it where the value is used, never where it is stored or printed."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Whether `candidate` is the secret, compared in constant time."""
        return _same(self._value, candidate)

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and _same(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return (Secret, (HIDDEN,))


def _same(text: str, other: str) -> bool:
    import hmac  # 1 ms that a start without a comparison does not pay

    return hmac.compare_digest(text.encode(), other.encode())
