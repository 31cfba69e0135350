"""Commands that errors, runbooks and documentation tell people to type are there, with the options they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from magmobo.cli.catalogue import error_classes
from magmobo.cli.group import COMMANDS
from magmobo.contracts.errors import MagError

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "errors.md"}),  # made from the classes below
    *sorted((ROOT / "docs" / "runbooks").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
PASSED_ON = {"magds:psql"}


@cache
def options_of(command: str) -> frozenset[str]:
    found = getattr(import_module(COMMANDS[command].module), COMMANDS[command].attribute)
    return frozenset({"--help", "--", *(name for one in found.params for name in (*one.opts, *one.secondary_opts))})


def quoted(text: str) -> Iterator[str]:
    yield from re.findall(r"`mag ([^`]+)`", text)


def typed(page: str) -> Iterator[str]:
    """What follows a prompt: `$ mag this && mag that  # why`."""
    for line in re.findall(r"^\s*\$ (.*)$", page, re.MULTILINE):
        for part in line.partition(" #")[0].split("&&"):
            if part.strip().startswith("mag "):
                yield part.strip().removeprefix("mag ")


def unknown(line: str) -> Sequence[str]:
    """What of a command line is not there."""
    words = [word.strip("[],;") for word in line.split()]
    if ":".join(words[:2]) in COMMANDS:
        words = [":".join(words[:2]), *words[2:]]
    if words[0] not in COMMANDS:
        return [] if words[0].startswith("-") or words[0] == "noun" else [words[0]]
    if words[0] in PASSED_ON:
        return []
    wrong = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]
    return [word for word in wrong if word not in options_of(words[0])]


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.__name__)
def test_the_next_step_of_an_error_can_be_typed(error: type[MagError]) -> None:
    assert {line: wrong for line in quoted(error.remedy) if (wrong := unknown(line))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_says_can_be_typed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = [line for line in quoted(text) if line.partition(" ")[0] not in {"noun:verb", "…"}]
    assert {line: wrong for line in (*named, *typed(text)) if (wrong := unknown(line))} == {}
