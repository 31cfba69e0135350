"""The capability gate: the whole table, components, break-glass, what it tells and counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.contracts.capabilities import CAPABILITIES, Actor, Role
from magmobo.contracts.events import Event, SecurityBreakglass, SecurityCapabilityDenied
from magmobo.kernel.redact import redact_text
from magmobo.kernel.security.errors import CapabilityDenied, JustificationRefused
from magmobo.kernel.security.gate import Decisions, Gate

ORDER = ["viewer", "developer", "operator", "admin"]


def actor(role: Role, via: Any = "control", **facts: Any) -> Actor:
    return Actor(name="uid:7", role=role, via=via, **facts)


def allowed(gate: Gate, who: Actor, capability: str) -> bool:
    try:
        return not gate.require(who, capability, "test:ping")
    except CapabilityDenied:
        return False


@pytest.mark.parametrize("via", ["control", "console", "kernel"])
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_role_holds_what_the_catalogue_says_and_nothing_else(capability: str, role: Role, via: str) -> None:
    least = CAPABILITIES[capability]
    expected = ORDER.index(role.value) >= ORDER.index(least.value)
    assert allowed(Gate(lambda event: None), actor(role, via), capability) is expected


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_component_holds_exactly_what_it_declares_whatever_its_role(capability: str, role: Role) -> None:
    gate = Gate(lambda event: None)
    others = frozenset(CAPABILITIES) - {capability}
    assert allowed(gate, actor(role, "component", capabilities=frozenset({capability})), capability)
    assert not allowed(gate, actor(role, "component", capabilities=others), capability)


@pytest.mark.parametrize("via", ["control", "console", "kernel"])
def test_declared_capabilities_give_a_person_nothing(via: str) -> None:
    who = actor(Role.VIEWER, via, capabilities=frozenset(CAPABILITIES))
    assert not allowed(Gate(lambda event: None), who, "kernel.node.reset")


@pytest.mark.parametrize("capability", ["", "kernel.node", "kernel.node.reset ", "KERNEL.NODE.RESET", "*"])
def test_what_the_catalogue_does_not_know_is_held_by_nobody(capability: str) -> None:
    gate = Gate(lambda event: None)
    everybody = [
        actor(Role.ADMIN),
        actor(Role.ADMIN, "kernel"),
        actor(Role.ADMIN, justification="I need it"),
        actor(Role.ADMIN, "component", capabilities=frozenset({capability})),
    ]
    assert not [who for who in everybody if allowed(gate, who, capability)]
    assert gate.decisions() == Decisions(0, len(everybody), 0)


def test_a_role_that_does_not_exist_holds_nothing() -> None:
    forged: Any = "root"
    assert not allowed(Gate(lambda event: None), actor(forged), "kernel.status.read")


def test_a_denial_is_told_with_actor_capability_and_context() -> None:
    events: list[Event] = []
    with pytest.raises(CapabilityDenied) as denied:
        Gate(events.append).require(actor(Role.OPERATOR), "kernel.node.reset", "kernel:reset")
    assert events == [SecurityCapabilityDenied("kernel.node.reset", "uid:7", "kernel:reset")]
    assert (denied.value.exit_code, denied.value.http_status) == (6, 403)
    assert str(denied.value) == 'uid:7 may not kernel:reset, because kernel.node.reset asks for the role "admin"'


def test_a_denied_component_reads_what_its_class_should_declare() -> None:
    who = Actor(name="component:demo", role=Role.VIEWER, via="component")
    with pytest.raises(CapabilityDenied) as denied:
        Gate(lambda event: None).require(who, "kernel.audit.read", "audit:tail")
    assert '"kernel.audit.read"' in denied.value.next_step()


# ---------------------------------------------------------------- break-glass


@pytest.mark.parametrize("via", ["control", "console"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_person_breaks_the_glass_with_a_justification_and_everybody_hears_it(capability: str, via: str) -> None:
    events: list[Event] = []
    gate = Gate(events.append)
    assert gate.require(actor(Role.VIEWER, via, justification=" it burns "), capability, "test:ping") is True
    assert events == [SecurityBreakglass("uid:7", capability, "it burns")]
    assert gate.decisions() == Decisions(0, 0, 1)


def test_break_glass_is_a_mode_so_who_might_anyway_is_on_record_too() -> None:
    assert Gate(lambda event: None).require(actor(Role.ADMIN, justification="x"), "kernel.status.read", "c") is True


@pytest.mark.parametrize("via", ["component", "kernel"])
def test_a_program_breaks_no_glass(via: str) -> None:
    events: list[Event] = []
    who = actor(Role.VIEWER, via, justification="I would like to")
    with pytest.raises(CapabilityDenied):
        Gate(events.append).require(who, "kernel.node.reset", "kernel:reset")
    assert [type(event) for event in events] == [SecurityCapabilityDenied]


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u2003"])
def test_a_blank_justification_is_none(blank: str) -> None:
    with pytest.raises(CapabilityDenied):
        Gate(lambda event: None).require(actor(Role.VIEWER, justification=blank), "kernel.node.reset", "kernel:reset")


@pytest.mark.parametrize("text", ["x" * 501, "a\nforged line", "\x1b[2J", "\ud800", "a\x00b"])
def test_a_justification_that_cannot_be_on_record_opens_nothing(text: str) -> None:
    events: list[Event] = []
    gate = Gate(events.append)
    with pytest.raises(JustificationRefused) as refused:
        gate.require(actor(Role.VIEWER, justification=text), "kernel.node.reset", "kernel:reset")
    assert text not in str(refused.value)
    assert [type(event) for event in events] == [SecurityCapabilityDenied]
    assert gate.decisions() == Decisions(0, 1, 0)


@given(st.sampled_from(Role), st.sampled_from(["control", "console", "component", "kernel"]), st.text(), st.text())
def test_every_question_is_answered_and_counted_once(role: Role, via: str, capability: str, why: str) -> None:
    gate = Gate(lambda event: None)
    who = actor(role, via, justification=why, capabilities=frozenset({capability}))
    for asked in (capability, "kernel.status.read"):
        try:
            by_breakglass = gate.require(who, asked, "test:ping")
        except (CapabilityDenied, JustificationRefused):
            continue
        assert asked in CAPABILITIES
        assert not by_breakglass or why.strip()
    counted = gate.decisions()
    assert counted.allowed + counted.denied + counted.breakglass == 2


def test_the_reason_of_a_denial_is_no_value_of_what_it_names() -> None:
    denied = CapabilityDenied("uid:7", "kernel.config.authority", "config:set of greeter.token", "admin")
    assert redact_text(str(denied)) == str(denied)
