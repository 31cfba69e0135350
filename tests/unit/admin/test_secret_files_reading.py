"""Files of secrets as a whole: which format they are in, what their keys are called, identities, bounds."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magmobo.admin.secret_files import read_secret_file
from magmobo.admin.secret_files.errors import (
    ExtraMissing,
    IdentityNeeded,
    IdentityWrong,
    SecretFileError,
    SecretFileMalformed,
    SecretFileTampered,
    SecretFileUnsupported,
    SecretNamesRefused,
)
from magmobo.admin.secret_files.reading import MAX_FILE_BYTES
from magmobo.admin.secret_files.stores import read_store
from magmobo.admin.secret_files.trees import Leaf, TreeMalformed
from magmobo.kernel.vault.driver import MAX_SECRET_BYTES

KEY = pyrage.x25519.Identity.generate()
OTHER = pyrage.x25519.Identity.generate()


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "identity.txt"
    path.write_text(f"# created: today\n# public key: {KEY.to_public()}\n{KEY}\n")
    return path


def encrypted(path: Path, text: str | bytes, *recipients: Any, armored: bool = False) -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(pyrage.encrypt(data, list(recipients) or [KEY.to_public()], armored=armored))
    return path


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def revealed(path: Path, **options: Any) -> Mapping[str, str]:
    return {name: secret.reveal() for name, secret in read_secret_file(path, **options).items()}


def outcome(path: Path, **options: Any) -> tuple[Mapping[str, str], SecretFileError | None]:
    try:
        return revealed(path, **options), None
    except SecretFileError as refusal:
        return {}, refusal


# ---------------------------------------------------------------- names


def test_keys_become_names_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / ".env", "\ufeffDATABASE_URL=x\nexport Api.Key-2=y\nEMPTY=\nA=z\n")
    assert list(revealed(path).items()) == [("database_url", "x"), ("api.key-2", "y"), ("a", "z")]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("A=1\na=2", ['line 2: "a" stands in line 1 already']),
        ("A=\nB=x\na=2", ['line 3: "a" stands in line 1 already']),
        ("_A=1\nB=2", ["line 1: its key makes no name of a secret"]),
        (f"{'A' * 101}=1", ["line 1: its key makes no name of a secret"]),
        (f"A={'x' * (MAX_SECRET_BYTES + 1)}", [f'line 1: "a" is longer than {MAX_SECRET_BYTES} bytes']),
        (
            f"A={'é' * (MAX_SECRET_BYTES // 2 + 1)}\n_B=1",
            [f'line 1: "a" is longer than {MAX_SECRET_BYTES} bytes', "line 2: its key makes no name of a secret"],
        ),
    ],
)
def test_keys_that_make_no_name_are_refused_all_at_once(tmp_path: Path, text: str, problems: list[str]) -> None:
    with pytest.raises(SecretNamesRefused) as refusal:
        read_secret_file(written(tmp_path / ".env", text))
    assert refusal.value.problems == problems


@pytest.mark.parametrize("text", ["", "\n# A=1\n", "A=\nB=''\n"])
def test_a_file_without_secrets_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SecretFileError, match="it holds no secrets"):
        read_secret_file(written(tmp_path / ".env", text))


def test_as_many_secrets_as_one_command_takes(tmp_path: Path) -> None:
    lines = [f"K{number}=v" for number in range(501)]
    assert len(read_secret_file(written(tmp_path / ".env", "\n".join(lines[:500])))) == 500
    with pytest.raises(SecretFileError, match="501 secrets, more than the 500"):
        read_secret_file(written(tmp_path / ".env", "\n".join(lines)))


# ---------------------------------------------------------------- files


def test_the_longest_file_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    start = "A=1\n#"
    assert revealed(written(tmp_path / "a", start + "x" * (MAX_FILE_BYTES - len(start)))) == {"a": "1"}
    with pytest.raises(SecretFileError, match="larger than 1048576 bytes"):
        read_secret_file(written(tmp_path / "a", start + "x" * (MAX_FILE_BYTES - len(start) + 1)))


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(SecretFileError, match="larger than"):
        read_secret_file(Path("/dev/zero"))


def test_what_another_program_prints_into_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("A=1\n",))
    writer.start()
    assert revealed(pipe) == {"a": "1"}
    writer.join()


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"A=\xff\xfe", "not text in UTF-8"), (b"A=1\0", "a zero byte"), (b"\x1f\x8b\x08hunter2", "not text in UTF-8")],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(SecretFileError, match=reason):
        read_secret_file(written(tmp_path / "a", data))


@pytest.mark.parametrize(("name", "reason"), [("missing", "no such file"), (".", "is a directory")])
def test_what_cannot_be_opened_is_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(SecretFileError, match=reason) as refusal:
        read_secret_file(tmp_path / name)
    assert refusal.value.__cause__ is None
    assert str(tmp_path) in str(refusal.value)


# ---------------------------------------------------------------- age


@pytest.mark.parametrize("armored", [False, True])
@pytest.mark.parametrize("format", ["auto", "age"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("secrets.env.age", "A_B=x y\n"),
        ("secrets.age", "# c\nA_B='x y'\n"),
        ("secrets.json.age", '{"A_B": "x y"}'),
        ("secrets.age", '\n {"A_B": "x y"}'),
        ("secrets.toml.age", 'A_B = "x y"'),
        ("secrets.age", '# c\n[A_B]\nC = "x y"'),
    ],
)
def test_what_age_encrypted(tmp_path: Path, identity: Path, name: str, text: str, format: Any, armored: bool) -> None:
    path = encrypted(tmp_path / name, text, OTHER.to_public(), KEY.to_public(), armored=armored)
    found = revealed(path, format=format, identity=identity)
    assert list(found.values()) == ["x y"]
    assert set(found) <= {"a_b", "a_b.c"}


def test_tables_and_lists_of_json_are_joined_by_dots(tmp_path: Path, identity: Path) -> None:
    tree = {"DB": {"url": "u", "ports": [1, 2.5, {"x": True}], "off": None, "none": ""}, "e": [[]], "f": {}, "g": "é"}
    path = encrypted(tmp_path / "a.json.age", json.dumps(tree))
    assert revealed(path, identity=identity) == {
        "db.url": "u", "db.ports.0": "1", "db.ports.1": "2.5", "db.ports.2.x": "true", "g": "é",
    }  # fmt: skip


def test_tables_and_lists_of_toml_are_joined_by_dots(tmp_path: Path, identity: Path) -> None:
    text = 'x = "1"\ny.z = 2\n[db]\nurl = "u"\non = false\n[[apps]]\nkey = "k"\n[[apps]]\nkey = "l"\nbig = 1e3\n'
    assert revealed(encrypted(tmp_path / "a.toml.age", text), identity=identity) == {
        "x": "1", "y.z": "2", "db.url": "u", "db.on": "false",
        "apps.0.key": "k", "apps.1.key": "l", "apps.1.big": "1e3",
    }  # fmt: skip


DEEP = 5_000


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.json", '{"a": "hunter2"', "line 1: not JSON"),
        ("a.json", '{"a":\n "hunter2" "b"}', "line 2: not JSON"),
        ("a.json", '["hunter2"]', "not a table"),
        ("a.json", '"hunter2"', "not a table"),
        ("a.json", '{"hunter2": 1, "hunter2": 2}', "a key stands twice"),
        ("a.json", '{"a": NaN}', "not a number of JSON"),
        ("a.json", '{"a": ' + "9" * 5_000 + "}", "a number is too large"),
        ("a.json", '{"a": "\\ud800hunter2"}', "not valid Unicode"),
        ("a.json", '{"a":' * DEEP + "1" + "}" * DEEP, "nests too deeply"),
        ("a.json", '{"a":' * 40 + "1" + "}" * 40, "nests too deeply"),
        ("a.json", '{"a":' + "[" * 100_000, "nests too deeply"),
        ("a.json", '{"a": [' + "1," * 20_001 + "1]}", "more than 20000 values"),
        ("a.toml", 'a = "hunter2', "not TOML"),
        ("a.toml", 'a = "hunter2"\na = "b"', "not TOML"),
        ("a.toml", "a = 2020-01-01", "a date or a time"),
        ("a.toml", "a = " + "9" * 5_000, "not TOML"),
        ("a.toml", "a = 0x1" + "f" * 4_000, "a number is too large"),
        ("a.toml", "a = inf", "a number is too large"),
        ("a.toml", "a = " + "[" * DEEP, "nests too deeply"),
        ("a.toml", "b = 1\n" + ".".join("a" * 400_000) + " = 1", "line 2: too many dots"),
    ],
)
def test_what_is_malformed_inside_is_refused_without_a_word_of_it(
    tmp_path: Path, identity: Path, name: str, text: str, problem: str
) -> None:
    with pytest.raises(SecretFileMalformed, match=problem) as refusal:
        read_secret_file(encrypted(tmp_path / f"{name}.age", text), identity=identity)
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


def test_an_identity_is_needed(tmp_path: Path) -> None:
    with pytest.raises(IdentityNeeded):
        read_secret_file(encrypted(tmp_path / "a.age", "A=1"))


def test_an_identity_of_somebody_else_opens_nothing(tmp_path: Path, identity: Path) -> None:
    with pytest.raises(IdentityWrong, match="none of those it is encrypted for"):
        read_secret_file(encrypted(tmp_path / "a.age", "A=1", OTHER.to_public()), identity=identity)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no age identity"),
        ("# AGE-SECRET-KEY-1X\n", "holds no age identity"),
        (f"{KEY}\nAGE-SECRET-KEY-1HUNTER2\n", "line 2 is no X25519 identity"),
        (f"{str(KEY)[:-1]}\n", "line 1 is no X25519 identity"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n", "line 1 is no X25519 identity"),
        (f"{KEY}\n" * 33, "more than 32 age identities"),
        ("#" * 65_537, "larger than 65536 bytes"),
    ],
)
def test_a_bad_file_of_identities_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    bad = written(tmp_path / "bad", text)
    with pytest.raises(SecretFileError, match=reason) as refusal:
        read_secret_file(encrypted(tmp_path / "a.age", "A=1"), identity=bad)
    assert "hunter2" not in str(refusal.value).lower()
    assert str(KEY)[:-1] not in str(refusal.value)
    assert refusal.value.path == bad


def test_a_passphrase_is_no_identity(tmp_path: Path, identity: Path) -> None:
    stanza = "-> scrypt " + "A" * 22 + " 18\n" + "A" * 43 + "\n"
    path = written(tmp_path / "a.age", "age-encryption.org/v1\n" + stanza + "--- " + "A" * 43 + "\n" + "x" * 99)
    with pytest.raises(SecretFileUnsupported, match="with a passphrase"):
        read_secret_file(path, identity=identity)


def test_a_header_of_a_thousand_recipients_is_not_tried(tmp_path: Path, identity: Path) -> None:
    stanza = "-> X25519 " + "A" * 43 + "\n" + "A" * 43 + "\n"
    path = written(tmp_path / "a.age", "age-encryption.org/v1\n" + stanza * 1_000 + "--- " + "A" * 43 + "\n" + "x" * 99)
    with pytest.raises(SecretFileError, match="more than 256 recipients"):
        read_secret_file(path, identity=identity)


@pytest.mark.parametrize("armored", [False, True])
def test_no_changed_byte_and_no_missing_end_of_an_age_file_gives_other_secrets(
    tmp_path: Path, identity: Path, armored: bool
) -> None:
    whole = encrypted(tmp_path / "a.age", "HUNTER2=hunter2", armored=armored).read_bytes()
    changed = tmp_path / "changed.age"
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            found, refusal = outcome(written(changed, data), format="age", identity=identity)
            assert found == {"hunter2": "hunter2"} if refusal is None else "hunter2" not in str(refusal)
            assert armored or isinstance(refusal, SecretFileTampered | IdentityWrong | SecretFileUnsupported)


STARTS = [
    b"",
    b"age-encryption.org/v1\n",
    b"-----BEGIN AGE ENCRYPTED FILE-----\n",
    b'{"sops":',
    b"sops_mac=",
    b"sops:\n",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200)
@given(st.binary(max_size=300), st.sampled_from(STARTS))
def test_any_bytes_are_read_or_refused(tmp_path: Path, identity: Path, data: bytes, start: bytes) -> None:
    found, refusal = outcome(written(tmp_path / "any", start + data), identity=identity)
    assert found or str(refusal)


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("module", ["pyrage", "yaml"])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path: Path, identity: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = written(tmp_path / "a.yaml", "a: 1\nsops:\n    mac: x\n")
    with pytest.raises(ExtraMissing) as refusal:
        read_secret_file(path, identity=identity)
    assert "pip install 'magmobo[" in refusal.value.next_step()


def test_errors_survive_pickling(tmp_path: Path) -> None:
    for error in (SecretFileMalformed(tmp_path, ["a", "b"]), SecretNamesRefused(tmp_path, ["c"]),
                  SecretFileError(tmp_path, "r"), ExtraMissing("what", "age")):  # fmt: skip
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)


def test_a_long_list_of_problems_is_cut(tmp_path: Path) -> None:
    with pytest.raises(SecretFileMalformed, match="line 20: not KEY=value; and 80 more") as refusal:
        read_secret_file(written(tmp_path / ".env", "x\n" * 100))
    assert len(refusal.value.problems) == 100


@pytest.mark.parametrize(("format", "text"), [("sops", "A=1"), ("sops", '{"a": 1}'), ("sops", "a: 1")])
def test_a_file_that_is_not_of_the_named_format_is_refused(tmp_path: Path, format: Any, text: str) -> None:
    with pytest.raises(SecretFileMalformed, match="no metadata of SOPS"):
        read_secret_file(written(tmp_path / "a", text), format=format)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\nsops: {}\n", "x" * 900_000])
def test_yaml_that_holds_nothing(text: str) -> None:
    with pytest.raises(TreeMalformed):
        read_store(text, "yaml")


def test_a_megabyte_of_digits_takes_no_more_than_linear_time() -> None:
    [leaf] = read_store("a: " + "9" * 900_000 + "x\nsops: {}\n", "yaml").values.values()
    assert isinstance(leaf, Leaf)
    assert len(leaf.text) == 900_001


def test_env_is_taken_at_its_word(tmp_path: Path) -> None:
    text = "sops_version=3\nA=ENC[AES256_GCM,data:x,iv:x,tag:x,type:str]"
    assert revealed(written(tmp_path / "a", text), format="env")["sops_version"] == "3"
