"""The transition table: as the contract says it, and as a machine that is driven at random."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from magmobo.extensions.lifecycle.errors import ExtensionBusyWith
from magmobo.extensions.lifecycle.states import MAY_RUN, STORED, TRANSITIONS, UNDER_WAY, State, check

CONTRACT = ("not_installed", "verifying", "installing", "installed", "enabling", "enabled", "disabling", "disabled",
            "uninstalling", "not_installed")  # fmt: skip
RESTING = {State.NOT_INSTALLED, State.INSTALLED, State.ENABLED, State.DISABLED, State.ERROR}


def test_the_way_of_the_contract_is_open() -> None:
    for old, new in pairwise(CONTRACT):
        check("demo", State(old), State(new))


@pytest.mark.parametrize("old", State)
def test_everything_else_is_refused(old: State) -> None:
    for new in set(State) - TRANSITIONS[old]:
        with pytest.raises(ExtensionBusyWith) as caught:
            check("demo", old, new)
        assert (caught.value.state, caught.value.wanted) == (old, new)


def test_the_table_hangs_together() -> None:
    assert set(TRANSITIONS) == set(State)
    assert UNDER_WAY < STORED
    assert State.ENABLED in MAY_RUN
    assert not MAY_RUN & {State.INSTALLED, State.DISABLED, State.ERROR}
    for state in UNDER_WAY:
        assert TRANSITIONS[state] & RESTING, f"{state} ends"
    assert State.ENABLED not in TRANSITIONS[State.INSTALLED] | TRANSITIONS[State.DISABLED], "not without being started"
    assert State.UNINSTALLING not in TRANSITIONS[State.ENABLED], "nothing that runs is removed"


class Life(RuleBasedStateMachine):
    """Whatever is asked in whatever order, an extension is somewhere from where it can be removed."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.NOT_INSTALLED
        self.was_enabled_from: set[State] = set()

    @rule(new=st.sampled_from(State))
    def ask(self, new: State) -> None:
        before = self.state
        try:
            check("demo", before, new)
        except ExtensionBusyWith:
            assert new not in TRANSITIONS[before]
        else:
            self.state = new
            if new is State.ENABLED:
                assert before in (State.ENABLING, State.UPGRADING)

    @precondition(lambda self: self.state in UNDER_WAY)
    @rule(data=st.data())
    def the_node_dies(self, data: st.DataObject) -> None:
        resting = sorted(TRANSITIONS[self.state] & RESTING)
        self.state = data.draw(st.sampled_from(resting))

    @invariant()
    def can_be_removed(self) -> None:
        seen, edge = {self.state}, {self.state}
        while edge:
            edge = {new for state in edge for new in TRANSITIONS[state]} - seen
            seen |= edge
        assert State.NOT_INSTALLED in seen


TestLife = Life.TestCase
