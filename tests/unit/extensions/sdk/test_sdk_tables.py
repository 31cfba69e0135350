"""What the SDK repeats of the node's catalogues says the same."""

from __future__ import annotations

from typing import get_type_hints

import msgspec
import pytest

from magmobo.contracts.extensions import EXTENSION_CAPABILITIES
from magmobo.contracts.hooks import HOOK_POINTS, HookSpec, Phase
from magmobo.extensions.events import access
from magmobo.extensions.events.bodies import CHANGE_TOPIC, GAP_TOPIC
from magmobo.extensions.gate.errors import NotGranted, UnknownMethod
from magmobo.extensions.package.checks import known_topics
from magx import fakes, session
from magx.contexts import POINTS
from magx.fakes import CAPABILITY_OF, IMPLIED, NOT_GRANTED, UNKNOWN

USABLE = [spec for spec in HOOK_POINTS.values() if not spec.planned]


def test_every_usable_hook_point_is_there() -> None:
    assert list(POINTS) == [spec.name for spec in USABLE]


@pytest.mark.parametrize("spec", USABLE, ids=lambda spec: spec.name)
def test_a_hook_point_says_what_the_node_says(spec: HookSpec) -> None:
    point = POINTS[spec.name]
    told = [field.name for field in msgspec.structs.fields(spec.context)]
    assert list(get_type_hints(point.context)) == told
    assert point.context.__name__ == spec.context.__name__
    assert (point.capability, point.mutable) == (spec.capability, frozenset(spec.mutable))
    assert point.is_around is (spec.phase is Phase.AROUND)
    assert spec.name.rpartition(".")[2].startswith("around_") is point.is_around


def test_capabilities_imply_what_they_imply_in_the_node() -> None:
    assert {one.name: one.implies for one in EXTENSION_CAPABILITIES.values() if one.implies} == IMPLIED


def test_methods_take_capabilities_that_exist() -> None:
    assert {one for one in CAPABILITY_OF.values() if one} <= set(EXTENSION_CAPABILITIES)


def test_refusals_carry_the_nodes_codes() -> None:
    assert (NotGranted.code, UnknownMethod.code) == (NOT_GRANTED, UNKNOWN)


def test_gaps_are_known_by_the_nodes_topic() -> None:
    assert session.GAP_TOPIC == GAP_TOPIC


def test_hearing_of_a_topic_takes_what_it_takes_in_the_node() -> None:
    topics = known_topics() | {"auth.anything", "security.anything", "api.anything", "realtime.anything"}
    assert {topic: fakes.capability_for(topic) for topic in topics} == {
        topic: access.capability_for(topic) for topic in topics
    }
    assert fakes.CHANGE_TOPIC == CHANGE_TOPIC
