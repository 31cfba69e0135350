"""Durations as people write them; what `mag up` hands on."""

from __future__ import annotations

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import magmobo.node.process
from magmobo.cli.background import _arguments
from magmobo.cli.main import main
from magmobo.cli.options import Duration
from magmobo.node.settings import NodeOptions

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONG = Duration(max_s=1e12)


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from(list(UNITS_S))), min_size=1, max_size=4))
def test_parts_are_summed(parts: list[tuple[int, str]]) -> None:
    expected_s = sum(number * UNITS_S[unit] for number, unit in parts)
    text = "".join(f"{number}{unit}" for number, unit in parts)
    if expected_s:
        assert LONG.convert(text, None, None) == expected_s
    else:
        with pytest.raises(click.BadParameter):
            LONG.convert(text, None, None)


@given(st.text(max_size=20))
@example("1.5h")
@example("0.5")
@example("90\n")
@example("\u0661s")  # a digit, but not of ours
def test_anything_is_a_duration_in_bounds_or_refused(text: str) -> None:
    try:
        assert 0 < Duration(max_s=3600).convert(text, None, None) <= 3600
        assert text.isascii()
        assert text == text.strip()
    except click.BadParameter:
        pass


@pytest.mark.parametrize(
    ("text", "expected_s"), [("90", 90), ("1.5h", 5400), ("0.5", 0.5), ("1h30m", 5400), ("1d", 86_400)]
)
def test_examples(text: str, expected_s: float) -> None:
    assert LONG.convert(text, None, None) == expected_s


@pytest.mark.parametrize(("max_s", "text", "fits"), [(60.0, "1m", True), (60.0, "61", False), (60.0, "60.001", False)])
def test_the_bound_is_inclusive(max_s: float, text: str, fits: bool) -> None:
    if fits:
        assert Duration(max_s=max_s).convert(text, None, None) == max_s
    else:
        with pytest.raises(click.BadParameter, match="is not between 0 and"):
            Duration(max_s=max_s).convert(text, None, None)


@pytest.mark.parametrize("words", [[], ["--accept-removed"], ["--safe"], ["--accept-removed", "--safe"]])
def test_flags_of_a_start_reach_the_node_also_in_the_background(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[NodeOptions] = []
    monkeypatch.setattr(magmobo.node.process, "run_node", lambda options, **_: chosen.append(options))
    assert main(["up", *words]) == 0
    assert chosen[0].accept_removed is ("--accept-removed" in words)
    assert chosen[0].safe is ("--safe" in words)
    assert sorted(_arguments(chosen[0])) == sorted(words)
