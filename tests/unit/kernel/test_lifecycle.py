"""No sequence of requests leads a component outside the table, and every change is announced once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from magmobo.contracts.events import ComponentFailed, ComponentStarted, ComponentStateChanged, ComponentStopped
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.errors import IllegalTransition
from magmobo.kernel.lifecycle import TRANSITIONS, Lifecycle, State

# Written out a second time, from the project's contract, so that a slip in the table shows.
CONTRACT = """
registered configured, configured booted, booted starting, starting running, running stopping, stopping stopped,
stopped starting, registered failed, configured failed, booted failed, starting failed, running failed, stopping failed,
failed recovering, recovering running, recovering failed, recovering quarantined, failed starting, quarantined starting,
registered disabled, stopped disabled, disabled registered, disabled stopped
"""
ALLOWED = {tuple(pair.split()) for pair in CONTRACT.replace("\n", " ").split(",")}


def test_the_table_is_the_contract() -> None:
    assert {(str(old), str(new)) for old, news in TRANSITIONS.items() for new in news} == ALLOWED
    assert TRANSITIONS.keys() == set(State)


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bus = EventBus()
        self.changes: list[ComponentStateChanged] = []
        self.topics: list[str] = []
        self.bus.on(ComponentStateChanged, lambda envelope: self.changes.append(envelope.data))
        for event in (ComponentStarted, ComponentStopped, ComponentFailed):
            self.bus.on(event, lambda envelope: self.topics.append(envelope.topic))
        self.now_s = 0.0
        self.lifecycle = Lifecycle("magds", self.bus, lambda: self.now_s)
        self.expected = State.REGISTERED
        self.expected_topics: list[str] = []

    @rule(new=st.sampled_from(State))
    def ask(self, new: State) -> None:
        self.now_s += 1
        if (str(self.expected), str(new)) in ALLOWED:
            self.lifecycle.to(new)
            self.expected = new
            assert self.lifecycle.since_s == self.now_s
            self.expected_topics += {
                State.RUNNING: ["component.started"],
                State.STOPPED: ["component.stopped"],
            }.get(new, [])
        else:
            with pytest.raises(IllegalTransition, match=f"from {self.expected} to {new}"):
                self.lifecycle.to(new)
            assert self.lifecycle.since_s < self.now_s

    @rule()
    def fail(self) -> None:
        possible = (str(self.expected), "failed") in ALLOWED
        self.lifecycle.fail(RuntimeError("broken on purpose"))
        if possible:
            self.expected = State.FAILED
            self.expected_topics.append("component.failed")

    @invariant()
    def the_state_is_known_and_every_change_was_told(self) -> None:
        assert self.lifecycle.state is self.expected
        told = [change.new_state for change in self.changes]
        assert told[-1:] == ([str(self.expected)] if told else [])
        assert [change.old_state for change in self.changes] == ["registered", *told][: len(told)]
        assert self.topics == self.expected_topics


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase
