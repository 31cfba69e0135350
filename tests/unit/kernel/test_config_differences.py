"""What differs is named leaf by leaf, what is marked is found from the inside out, what waits is kept."""

from __future__ import annotations

import math
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import LIVE, NEEDS_COMPONENT_RESTART, NEEDS_NODE_RESTART, Effect
from magmobo.kernel.config.differences import changed_keys, changed_settings, with_kept
from magmobo.kernel.config.effects import effect_of
from magmobo.kernel.config.keys import around, joined, steps
from magmobo.kernel.config.loader import Config

Marked = Annotated[int, Meta(ge=0), NEEDS_COMPONENT_RESTART]


class App(Struct, frozen=True, kw_only=True):
    id: str = ""
    secret: Annotated[str, LIVE] = ""


class Jwt(Struct, frozen=True, kw_only=True):
    secret: Annotated[str | None, LIVE] = None
    leeway_s: int = 0


class Round(Struct, frozen=True, tag="round"):
    size: int = 0


class Square(Struct, frozen=True, tag="square"):
    size: int = 0


class Sample(Struct, frozen=True, kw_only=True):
    port: Annotated[int | None, NEEDS_NODE_RESTART] = None
    ratio: float = 0.5
    limit: Annotated[Marked, LIVE] = 1
    other: Marked | None = None
    apps: Annotated[tuple[App, ...], NEEDS_NODE_RESTART] = ()
    jwt: Annotated[Jwt | None, NEEDS_COMPONENT_RESTART] = None
    base: Jwt = Jwt()
    labels: Annotated[dict[str, int], LIVE] = {}
    nested: dict[str, App] = {}
    shape: Round | Square | None = None
    password: Secret | None = None

    def __post_init__(self) -> None:
        if self.port == self.limit:
            raise ValueError("port and limit differ")


class Renamed(Struct, frozen=True, rename="kebab"):
    max_size: int = 0


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("port", Effect.NODE),
        ("limit", Effect.LIVE),
        ("other", Effect.COMPONENT),
        ("apps", Effect.NODE),
        ("apps[0].id", Effect.NODE),
        ("apps[3].secret", Effect.LIVE),
        ("jwt", Effect.COMPONENT),
        ("jwt.leeway_s", Effect.COMPONENT),
        ("jwt.secret", Effect.LIVE),
        ("base.leeway_s", Effect.NODE),
        ("labels.x", Effect.LIVE),
        ('nested."a.b".secret', Effect.LIVE),
        ("ratio", Effect.NODE),
        ("nothing.like.it", Effect.NODE),
    ],
)
def test_the_nearest_mark_on_the_way_counts(key: str, effect: Effect) -> None:
    assert effect_of(Sample, key, default=Effect.NODE) is effect


def test_what_carries_no_mark_takes_the_default() -> None:
    assert effect_of(Sample, "ratio", default=Effect.COMPONENT) is Effect.COMPONENT


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        (Sample(), Sample(), set()),
        (Sample(), Sample(ratio=1.0, port=2), {"ratio", "port"}),
        (Sample(apps=(App(),)), Sample(apps=(App(id="1"),)), {"apps"}),
        (Sample(), Sample(jwt=Jwt()), {"jwt.secret", "jwt.leeway_s"}),
        (Sample(jwt=Jwt(secret="s")), Sample(jwt=Jwt(secret="t")), {"jwt.secret"}),
        (Sample(labels={"a": 1, "b": 2}), Sample(labels={"b": 3, "c": 4}), {"labels.a", "labels.b", "labels.c"}),
        (Sample(nested={}), Sample(nested={"a.b": App()}), {'nested."a.b".id', 'nested."a.b".secret'}),
        (Sample(shape=Round()), Sample(shape=Square()), {"shape"}),
        (Sample(shape=Round()), Sample(shape=Round(1)), {"shape.size"}),
        (Sample(ratio=math.nan), Sample(ratio=-math.nan), set()),
        (Sample(ratio=math.nan), Sample(ratio=0.5), {"ratio"}),
        (Sample(password=Secret("a")), Sample(password=Secret("b")), {"password"}),
        (Sample(password=Secret("a")), Sample(password=Secret("a")), set()),
        (Renamed(1), Renamed(2), {"max-size"}),
    ],
)
def test_what_differs_is_named(old: Struct, new: Struct, keys: set[str]) -> None:
    assert changed_keys(old, new) == changed_keys(new, old) == keys


def test_sections_of_two_configurations_are_compared() -> None:
    old = Config({"a": Sample(), "b": Renamed(1), "c": Renamed()}, {})
    new = Config({"a": Sample(ratio=2), "c": Renamed(), "d": Renamed()}, {})
    assert changed_settings(old, new) == {"a.ratio", "b.max-size", "d.max-size"}


def test_what_is_kept_is_as_before() -> None:
    old = Sample(port=7, apps=(App(id="1"),), labels={"a": 1, "b": 1}, nested={"x": App(id="1")})
    new = Sample(port=9, ratio=2, labels={"b": 2, "c": 3, "d": 4}, nested={"x": App(id="2", secret="s")})
    kept = with_kept(new, old, ["port", "apps", "labels.a", "labels.b", "labels.c", "nested.x.id"])
    assert kept == Sample(
        port=7, ratio=2, apps=old.apps, labels={"a": 1, "b": 1, "d": 4}, nested={"x": App(id="1", secret="s")}
    )


def test_a_table_of_only_one_side_is_kept_wholly() -> None:
    there, gone = Sample(jwt=Jwt(secret="s", leeway_s=4)), Sample()
    assert with_kept(there, gone, ["jwt.secret"]) == gone
    assert with_kept(gone, there, ["jwt.secret"]) == there


def test_an_impossible_mixture_is_refused() -> None:
    with pytest.raises(ConfigError, match="waits for a restart of the node: port and limit differ"):
        with_kept(Sample(port=1, limit=2), Sample(port=2, limit=1), ["port"])


names = st.sampled_from(["a", "b", "a.b", 'q"', "ü"])
apps = st.builds(App, id=st.sampled_from("12"), secret=st.sampled_from("xy"))
samples: st.SearchStrategy[Sample] = st.builds(
    Sample,
    port=st.none() | st.integers(10, 11),
    ratio=st.sampled_from([0.5, math.nan]),
    limit=st.integers(0, 1),
    apps=st.lists(apps, max_size=2).map(tuple),
    jwt=st.none() | st.builds(Jwt, secret=st.none() | st.just("s"), leeway_s=st.integers(0, 1)),
    labels=st.dictionaries(names, st.integers(0, 1)),
    nested=st.dictionaries(names, apps, max_size=2),
    shape=st.none() | st.builds(Round, size=st.integers(0, 1)) | st.builds(Square, size=st.integers(0, 1)),
)


@settings(deadline=None)  # a busy machine is not a failure
@given(samples, samples, st.randoms())
def test_keeping_what_differs_gives_the_old_and_keeping_some_leaves_the_others(
    old: Sample, new: Sample, random: Any
) -> None:
    keys = sorted(changed_keys(old, new))
    assert changed_keys(with_kept(new, old, keys), old) == set()
    assert changed_keys(with_kept(new, old, []), new) == set()
    chosen = {key for key in keys if random.random() < 0.5}
    kept = with_kept(new, old, chosen)
    assert not changed_keys(kept, old) & chosen
    assert changed_keys(kept, old) <= set(keys)
    assert changed_keys(kept, new) <= set(keys)


@given(st.lists(st.tuples(st.text(min_size=1), st.none() | st.integers(0, 99)), min_size=1))
def test_a_key_says_its_way_whatever_the_names(way: list[tuple[str, int | None]]) -> None:
    key, expected = "", []
    for name, index in way:
        outer = key
        key = joined(key, name)
        expected.append(name)
        assert around(key) == outer
        if index is not None:
            key, outer = f"{key}[{index}]", key
            expected.append(index)
            assert around(key) == outer
    assert steps(key) == expected
