"""What a node makes up for itself: once, stored only when the start succeeded, and never the token itself."""

from __future__ import annotations

import stat
from hashlib import sha256
from pathlib import Path

import pytest

from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.node.operators import NodeOperators
from magmobo.node.secrets import GeneratedSecrets


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    folder.furnish()
    return folder


def test_the_first_start_makes_everything_and_the_second_reads_it(folder: DataFolder) -> None:
    first = GeneratedSecrets(folder)
    first.keep()
    second = GeneratedSecrets(folder)
    assert first.new_admin_token is not None
    assert second.new_admin_token is None
    assert second.layer(demo=True).values == first.layer(demo=True).values


def test_the_file_is_private_and_holds_no_token(folder: DataFolder) -> None:
    made = GeneratedSecrets(folder)
    made.keep()
    assert stat.S_IMODE(folder.secrets_file.stat().st_mode) == 0o600
    assert made.new_admin_token is not None
    text = folder.secrets_file.read_text()
    assert made.new_admin_token not in text
    assert sha256(made.new_admin_token.encode()).hexdigest() in text


def test_a_start_that_failed_leaves_nothing_so_the_next_one_shows_a_token(folder: DataFolder) -> None:
    GeneratedSecrets(folder)
    assert not folder.secrets_file.exists()
    assert GeneratedSecrets(folder).new_admin_token is not None


def test_removing_the_admin_table_makes_a_new_token_and_keeps_the_app(folder: DataFolder) -> None:
    first = GeneratedSecrets(folder)
    first.keep()
    head, app = folder.secrets_file.read_text().split("[[magws.apps]]")
    folder.secrets_file.write_text("[[magws.apps]]" + app)
    assert "token_sha256" in head
    second = GeneratedSecrets(folder)
    second.keep()
    assert second.new_admin_token not in (None, first.new_admin_token)
    assert second.layer(demo=False).values["magws"] == first.layer(demo=False).values["magws"]
    assert GeneratedSecrets(folder).layer(demo=False).values == second.layer(demo=False).values


def test_the_app_has_a_numeric_id(folder: DataFolder) -> None:
    (app,) = GeneratedSecrets(folder).layer(demo=False).values["magws"]["apps"]
    assert app["id"].isdigit()
    assert sorted(app) == ["id", "key", "secret"]


def test_only_a_demo_gets_the_signing_key(folder: DataFolder) -> None:
    made = GeneratedSecrets(folder)
    assert made.layer(demo=False).values.keys() == {"admin", "magws"}
    with_demo = made.layer(demo=True).values
    assert with_demo["maggate"]["jwt"]["secret"] == with_demo["demo"]["jwt_secret"]


@pytest.mark.parametrize(
    "text", ["", "half a", "[admin]\n", "[magws]\napps = []", "admin = 1", "[[magws.apps]]\nid = '1'"]
)
def test_a_damaged_file_is_an_error_and_stays_as_it_is(folder: DataFolder, text: str) -> None:
    folder.secrets_file.write_text(text)
    with pytest.raises(ConfigError, match=r"generated\.toml"):
        GeneratedSecrets(folder)
    assert folder.secrets_file.read_text() == text


def test_the_token_opens_the_door_and_nothing_else_does(folder: DataFolder) -> None:
    made = GeneratedSecrets(folder)
    token = made.new_admin_token
    assert token is not None
    stored = made.layer(demo=False).values["admin"]["token_sha256"]
    operators = NodeOperators(Secret(stored))
    assert operators.admin_token_matches(token)
    for wrong in ("", token[:-1], token + " ", stored, "\ud800"):
        assert not operators.admin_token_matches(wrong)
    assert not NodeOperators(None).admin_token_matches("")


def test_another_token_closes_the_door_for_the_former_one_and_says_so_each_time() -> None:
    first, second = (Secret(sha256(token).hexdigest()) for token in (b"first", b"second"))
    operators, numbers = NodeOperators(first), []
    for token_sha256, wanted in ((first, "first"), (second, "second"), (None, ""), (first, "first")):
        operators.take_token(token_sha256)
        numbers.append(operators.admin_token_number)
        assert [token for token in ("first", "second") if operators.admin_token_matches(token)] == [wanted][
            : bool(wanted)
        ]
    assert numbers == [1, 2, 3, 4]  # the token that came back is not the one that went
