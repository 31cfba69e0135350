"""A value that must never be shown."""

from __future__ import annotations

import hmac


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
        return hmac.compare_digest(self._value.encode(), candidate.encode())

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return (Secret, ("***",))
