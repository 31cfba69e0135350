"""What an error says of itself: ours by its code, another's by the line that raised it."""

from __future__ import annotations

import json
import re

import pytest

from magmobo.contracts.errors import MagError, Unavailable
from magmobo.kernel.errors import BootFailed, ComponentNotAdded, IllegalTransition, foreign, located


def read_nonsense() -> None:
    json.loads("{nonsense")


def nonsense_read() -> Exception:
    with pytest.raises(json.JSONDecodeError) as caught:
        read_nonsense()
    return caught.value


def test_the_line_is_that_of_who_called_the_library() -> None:
    found = located(nonsense_read())
    assert re.fullmatch(r"JSONDecodeError: .*, raised at unit/kernel/test_errors\.py:\d+ in read_nonsense", found)


def test_an_error_without_a_line_says_none() -> None:
    assert located(ValueError("no")) == "ValueError: no"


def test_ours_have_a_code_instead_of_a_line_and_no_traceback() -> None:
    ours, other = Unavailable("the store"), ValueError("no")
    assert located(ours) == f"the store is not available right now [{ours.code}]"
    assert foreign(ours) is None
    assert foreign(other) is other


@pytest.mark.parametrize("kind", [BootFailed, ComponentNotAdded])
def test_a_component_that_did_not_come_up_is_told_with_the_line(kind: type[MagError]) -> None:
    cause = nonsense_read()
    error = BootFailed("load", "x", "boot", cause) if kind is BootFailed else ComponentNotAdded("x", "boot", cause)
    assert "test_errors.py:" in str(error)


@pytest.mark.parametrize(
    ("old", "step"), [("disabled", "`mag component:enable x`"), ("running", "`mag component:restart x`")]
)
def test_who_starts_what_does_not_start_is_told_the_order_that_does(old: str, step: str) -> None:
    assert step in IllegalTransition("x", old, "starting").next_step()
