"""A `mag` of today and a node of yesterday: what that knows is done, what it does not know is said to be why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.admin.fake import FakeOperators, fake_node
from tests.integration.cli.replies import NODE
from tests.integration.console.played_extensions import PlayedExtensions

from magmobo import __version__
from magmobo.cli.main import main
from magmobo.contracts.commands import Command
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.extensions import ExtensionDetail, ExtensionId
from magmobo.kernel.commands.decode import decode, decoder_for
from magmobo.kernel.commands.errors import CommandUnknown

Capture = pytest.CaptureFixture[str]


class EnableOfYesterday(Command, frozen=True, kw_only=True):
    """`extension:enable` before it could empty files."""

    name = "extension:enable"
    reply = ExtensionDetail
    id: ExtensionId


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOperators]:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mag_data"
    folder.mkdir(mode=0o700)
    operators = FakeOperators({"kernel:status": replace(NODE, version="0.0.9")})
    decoder = decoder_for(EnableOfYesterday)

    def enable(_: Any) -> ExtensionDetail:
        decode(decoder, operators.sent[-1])
        return PlayedExtensions().details["guard"]

    operators.replies |= {"extension:enable": enable, "extension:list": CommandUnknown("extension:list")}
    with fake_node(folder, operators):
        yield operators


def refused(capsys: Capture, *words: str, code: int = 2) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert not out
    return err


def test_what_the_node_knows_is_done(node: FakeOperators, capsys: Capture) -> None:
    assert main(["extension:enable", "guard"]) == 0
    assert node.sent == [b'{"id": "guard"}']


def test_a_field_that_the_node_does_not_know_is_said_with_both_versions(node: FakeOperators, capsys: Capture) -> None:
    said = refused(capsys, "extension:enable", "guard", "--empty-files", "--yes")
    assert f"the node runs 0.0.9, this mag is {__version__}" in said
    assert '"empty_files" is unknown' in said
    assert "MAG-ADMIN-011" in said
    assert [one.command for one in node.asked] == ["extension:enable", "kernel:status"]


def test_a_command_that_the_node_does_not_know_is_said_with_both_versions(node: FakeOperators, capsys: Capture) -> None:
    assert f"the node runs 0.0.9, this mag is {__version__}" in refused(capsys, "extension:list")


def test_of_one_version_there_may_be_two_builds(node: FakeOperators, capsys: Capture) -> None:
    node.replies["kernel:status"] = replace(NODE, version=__version__)
    said = refused(capsys, "extension:enable", "guard", "--empty-files", "--yes")
    assert f"another build of {__version__}" in said
    said = refused(capsys, "extension:list")
    assert "MAG-CMD-001" in said
    assert "the node runs" not in said, "what answers it does not run there"


def test_a_node_that_does_not_say_its_version_is_another_one_all_the_same(node: FakeOperators, capsys: Capture) -> None:
    node.replies["kernel:status"] = Unavailable("the status")
    said = refused(capsys, "extension:enable", "guard", "--empty-files", "--yes")
    assert f"the node runs another version, this mag is {__version__}" in said
    assert "MAG-CMD-001" in refused(capsys, "extension:list")


def test_a_mistake_of_the_user_is_told_as_one(node: FakeOperators, capsys: Capture) -> None:
    said = refused(capsys, "extension:enable", "NO")
    assert "MAG-CMD-002" in said
    assert "the node runs" not in said
    said = refused(capsys, "kernel:call", "extension:enable", '{"id": "guard", "fiels": 1}')
    assert "MAG-CMD-002" in said
    assert "the node runs" not in said, "who writes the fields may have misspelt one"
