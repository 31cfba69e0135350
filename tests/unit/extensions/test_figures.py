"""Figures of extensions: bounded in number and shape, and what workers use over their lives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from magmobo.extensions.figures import NAMES_PER_EXTENSION, ExtensionFigures
from magmobo.extensions.installed import Installed
from magmobo.extensions.package.manifest import Manifest
from magmobo.kernel.observe.metrics import MetricsRegistry


class Scene:
    def __init__(self, *, granted: bool = True) -> None:
        self.registry, self.said = MetricsRegistry(), list[str]()
        self.figures = ExtensionFigures(
            self.registry.scoped("extensions"), lambda _, __: granted, lambda _, __, text: self.said.append(text)
        )
        self.installed = Installed("a", "1.0.0", "0" * 64, Manifest(id="a", name="A", version="1.0.0"), Path(), "key")

    def shown(self) -> str:
        return self.registry.exposition()[1].decode()


def test_counters_and_distributions_are_shown_under_their_extension() -> None:
    scene = Scene()
    scene.figures.take(scene.installed, "late_flights", "inc", 2)
    scene.figures.take(scene.installed, "late_flights", "inc", 1)
    scene.figures.take(scene.installed, "delay_seconds", "observe", 0.5)
    assert 'mag_extension_published_total{extension="a",name="late_flights"} 3' in scene.shown()
    assert 'mag_extension_published_count{extension="a",name="delay_seconds"} 1' in scene.shown()


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("Late Flights", 1.0, "words"),
        ("a" * 61, 1.0, "words"),
        ("late", math.nan, "finite"),
        ("late", math.inf, "finite"),
    ],
)
def test_what_does_not_fit_is_left_out_and_said_once(name: str, value: float, word: str) -> None:
    scene = Scene()
    for _ in range(3):
        scene.figures.take(scene.installed, name, "inc", value)
    assert len(scene.said) == 1
    assert word in scene.said[0]
    assert "mag_extension_published" not in scene.shown()


def test_names_are_bounded() -> None:
    scene = Scene()
    for number in range(NAMES_PER_EXTENSION + 5):
        scene.figures.take(scene.installed, f"name_{number}", "inc" if number % 2 else "observe", 1)
    assert scene.said == [f"a figure was left out: there are {NAMES_PER_EXTENSION} already"]


def test_nothing_without_the_capability() -> None:
    scene = Scene(granted=False)
    scene.figures.take(scene.installed, "late", "inc", 1)
    assert "not granted" in scene.said[0]


def test_cpu_goes_on_over_restarts_and_memory_is_that_of_now() -> None:
    scene = Scene()
    for used in ({"cpu_s": 1.5, "memory_bytes": 100.0}, {"cpu_s": 2.0, "memory_bytes": 80.0}, {"cpu_s": 0.25}):
        scene.figures.sample({"a": used})
    assert 'mag_extension_cpu_seconds_total{extension="a"} 2.25' in scene.shown()
    scene.figures.sample({"a": {"cpu_s": 0.5, "memory_bytes": 7.0}})
    assert 'mag_extension_memory_bytes{extension="a"} 7' in scene.shown()
    scene.figures.sample({})
    assert 'mag_extension_memory_bytes{extension="a"} 0' in scene.shown()
    assert 'mag_extension_cpu_seconds_total{extension="a"} 2.5' in scene.shown()
