"""Files that the real `age` and `sops` wrote, and what becomes of them when somebody changes them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vault.support import Tools

from magmobo.admin.secret_files import read_secret_file
from magmobo.admin.secret_files.errors import (
    IdentityWrong,
    SecretFileError,
    SecretFileMalformed,
    SecretFileTampered,
    SecretFileUnsupported,
    SecretNamesRefused,
)

YAML = """\
# a comment, which is encrypted too
database:
    url: postgres://app:hunter2@db/app # inline
    port: 5432
    ratio: 1.50
    "on": yes
    off: false
    nothing: null
    empty: ""
    apps:
        - key: "first: 1"
        # between
        - [x, {y: z}] # behind
        # at the end
    certificate: |
        -----BEGIN
        abc
since: 2001-12-14T21:59:43Z
big: 12345678901234567
umlaut: "päß\\n🔑"
kind_unencrypted: Secret
list_unencrypted: [1, 2.5, 1e30, true, null, "", ~, "1", 9007199254740993, 2001-12-14, "null", "true", "1.50"]
"""
FROM_YAML = {
    "database.url": "postgres://app:hunter2@db/app", "database.port": "5432", "database.ratio": "1.5",
    "database.off": "false", "database.on": "yes", "database.apps.0.key": "first: 1", "database.apps.1.0": "x",
    "database.apps.1.1.y": "z", "database.certificate": "-----BEGIN\nabc\n", "since": "2001-12-14T21:59:43Z",
    "big": "12345678901234567", "umlaut": "päß\n🔑",
}  # fmt: skip
JSON = {
    "Database": {"url": "postgres://app:hunter2@db/app", "port": 5432, "ratio": 1.5, "on": True, "z": None, "e": ""},
    "apps": [{"key": "k"}, ["x", 0.1]],
    "umlaut": 'päß\n"🔑\\',
    "kind_unencrypted": ["Secret", 1e21, 0.1, -3, False, 123456789012, 1e-7],
}
FROM_JSON = {
    "database.url": "postgres://app:hunter2@db/app", "database.port": "5432", "database.ratio": "1.5",
    "database.on": "true", "apps.0.key": "k", "apps.1.0": "x", "apps.1.1": "0.1", "umlaut": 'päß\n"🔑\\',
}  # fmt: skip
ENV = (
    "# c\nDATABASE_URL=postgres://app:hunter2@db/app\nMULTI=\"a\\nb\"\nexport Q='it # is'\nEMPTY=\nEQ=a=b # c\nNUM=5\n"
)
FROM_ENV = {"database_url": "postgres://app:hunter2@db/app", "multi": "a\nb", "q": "it # is", "eq": "a=b", "num": "5"}
INI = "top=1\n[db]\nurl=postgres://app:hunter2@db/app\n; c\npass = x y\nempty =\n[db.Sub]\nx=y\n"
FROM_INI = {"top": "1", "db.url": "postgres://app:hunter2@db/app", "db.pass": "x y", "db.sub.x": "y"}

FILES = [
    pytest.param("a.yaml", YAML, FROM_YAML, id="yaml"),
    pytest.param("a.json", json.dumps(JSON), FROM_JSON, id="json"),
    pytest.param("a.env", ENV, FROM_ENV, id="env"),
    pytest.param("a.ini", INI, FROM_INI, id="ini"),
]


def revealed(path: Path, identity: Path, **options: Any) -> Mapping[str, str]:
    return {name: secret.reveal() for name, secret in read_secret_file(path, identity=identity, **options).items()}


def refusal_of(path: Path, identity: Path) -> SecretFileError | None:
    try:
        read_secret_file(path, identity=identity)
    except SecretFileError as refusal:
        return refusal
    return None


# ---------------------------------------------------------------- age


@pytest.mark.parametrize("armor", [(), ("--armor",)])
def test_a_file_of_age_itself(tools: Tools, tmp_path: Path, armor: tuple[str, ...]) -> None:
    path = tmp_path / "x.env.age"
    path.write_bytes(tools.run("age", "-r", tools.recipient, *armor, stdin=b"A_B='x y'\nC=\"z\\n\"\n"))
    assert revealed(path, tools.identity) == {"a_b": "x y", "c": "z\n"}


def test_a_file_of_age_for_somebody_else(tools: Tools, tmp_path: Path) -> None:
    tools.run("age-keygen", "-o", str(tmp_path / "other"))
    path = tmp_path / "x.age"
    other = tools.run("age-keygen", "-y", str(tmp_path / "other")).decode().strip()
    path.write_bytes(tools.run("age", "-r", other, stdin=b"A=1"))
    with pytest.raises(IdentityWrong):
        read_secret_file(path, identity=tools.identity)


# ---------------------------------------------------------------- SOPS


@pytest.mark.parametrize("format", ["auto", "sops"])
@pytest.mark.parametrize(("name", "text", "wanted"), FILES)
def test_what_sops_encrypted(tools: Tools, name: str, text: str, wanted: Mapping[str, str], format: Any) -> None:
    found = revealed(tools.sops(name, text), tools.identity, format=format)
    assert found == wanted


ONLY_URL = {"database.url", "db.url", "database_url", "db.sub.x"}


@pytest.mark.parametrize("options", [("--encrypted-regex", "(?i)(url|^x)$"), ("--unencrypted-regex", "(?i)(url|^x)$")])
@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize(("name", "text", "wanted"), FILES)
def test_what_is_encrypted_counts_and_nothing_else(
    tools: Tools, name: str, text: str, wanted: Mapping[str, str], options: tuple[str, ...], only: bool
) -> None:
    found = revealed(tools.sops(name, text, *options, mac_only_encrypted=only), tools.identity)
    without = {key for key in found if "unencrypted" in key}  # the rule for the suffix is replaced by the regex
    names = {key for key in wanted if (key in ONLY_URL) == (options[0] == "--encrypted-regex")}
    assert {key: found[key] for key in found.keys() - without} == {key: wanted[key] for key in names}


def test_several_recipients_of_which_one_is_ours(tools: Tools, tmp_path: Path) -> None:
    tools.run("age-keygen", "-o", str(tmp_path / "other"))
    other = tools.run("age-keygen", "-y", str(tmp_path / "other")).decode().strip()
    path = tools.sops("two.yaml", "a: hunter2\n")
    tools.run("sops", "rotate", "--in-place", "--add-age", other, str(path))
    assert revealed(path, tmp_path / "other") == revealed(path, tools.identity) == {"a": "hunter2"}
    tools.run("sops", "rotate", "--in-place", "--rm-age", tools.recipient, str(path))
    assert isinstance(refusal_of(path, tools.identity), IdentityWrong)


def test_a_file_that_was_edited_by_sops(tools: Tools) -> None:
    path = tools.sops("edited.json", '{"a": "hunter2", "b": {"c": 1}}')
    tools.run("sops", "set", str(path), '["b"]["d"]', '"new"')
    tools.run("sops", "unset", str(path), '["a"]')
    assert revealed(path, tools.identity) == {"b.c": "1", "b.d": "new"}


def test_a_whole_file_of_another_kind_is_one_secret(tools: Tools) -> None:
    path = tools.sops("service.pem", "-----BEGIN KEY-----\nhunter2\n")
    assert revealed(path, tools.identity) == {"data": "-----BEGIN KEY-----\nhunter2\n"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("n.yaml", "a b: hunter2\n", "entry 1: its key makes no name"),
        ("n.json", '{"a": "x", "A": "hunter2"}', 'entry 2: "a" stands in entry 1'),
        ("n.json", '{"a": {"b": "x"}, "a.b": "hunter2"}', 'entry 2: "a.b" stands in entry 1'),
        ("n.ini", "a=x\n[default]\n[b]\nc d=hunter2", "entry 2: its key makes no name"),
    ],
)
def test_keys_that_make_no_name(tools: Tools, name: str, text: str, problem: str) -> None:
    refusal = refusal_of(tools.sops(name, text), tools.identity)
    assert isinstance(refusal, SecretNamesRefused)
    assert problem in str(refusal)
    assert "hunter2" not in str(refusal)


# ---------------------------------------------------------------- changed after it was encrypted


@pytest.mark.parametrize(("name", "text", "wanted"), FILES)
def test_no_changed_byte_gives_other_secrets(
    tools: Tools, tmp_path: Path, name: str, text: str, wanted: Mapping[str, str]
) -> None:
    whole = tools.sops(name, text).read_bytes()
    changed = tmp_path / name
    start = whole.index(b"sops")
    for at in [*range(0, start, 7), *range(start, len(whole), 11)]:
        for bit in (1, 32):
            changed.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            refusal = refusal_of(changed, tools.identity)
            assert "hunter2" not in str(refusal)
            assert refusal is not None or revealed(changed, tools.identity) == wanted


@pytest.mark.parametrize(("name", "text", "wanted"), FILES)
def test_no_missing_end_gives_other_secrets(
    tools: Tools, tmp_path: Path, name: str, text: str, wanted: Mapping[str, str]
) -> None:
    whole = tools.sops(name, text).read_bytes()
    changed = tmp_path / name
    for end in range(whole.index(b"ENC[AES") + 7 if name == "a.env" else 0, len(whole), 7):
        changed.write_bytes(whole[:end])
        refusal = refusal_of(changed, tools.identity)
        assert refusal is not None or revealed(changed, tools.identity) == wanted, end


SEALED = re.compile(r"ENC\[AES256_GCM,[^]]*type:str\]")


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def test_exchanged_values_are_found(tools: Tools) -> None:
    path = tools.sops("moved.yaml", "a: one\nb: two\nc: [three, four]\n")
    first, second, third, fourth = SEALED.findall(path.read_text())[:4]
    whole = path.read_text()
    path.write_text(whole.replace(first, "#").replace(second, first).replace("#", second))
    assert "entry 1: it was changed, or moved" in str(refusal_of(path, tools.identity))
    path.write_text(whole.replace(third, "#").replace(fourth, third).replace("#", fourth))
    assert "its MAC does not fit" in str(refusal_of(path, tools.identity)), "a list's order is in the MAC alone"


@pytest.mark.parametrize("only", [False, True])
def test_a_removed_an_added_and_a_replaced_value_are_found(tools: Tools, only: bool) -> None:
    path = tools.sops("cut.yaml", "a: one\nb: two\n", mac_only_encrypted=only)
    lines = lines_of(path)
    for changed in (lines[1:], [lines[0], *lines[2:]], ["b: one\n", *lines[2:]], ["a: hunter2\n", *lines[1:]]):
        path.write_text("".join(changed))
        assert isinstance(refusal_of(path, tools.identity), SecretFileTampered), changed
    path.write_text("".join(["c: hunter2\n", *lines]))
    assert (refusal_of(path, tools.identity) is None) == only, "what is in the clear is then not covered"
    assert not only or revealed(path, tools.identity) == {"a": "one", "b": "two"}


def test_a_value_of_a_list_that_is_made_a_comment_is_found(tools: Tools) -> None:
    path = tools.sops("comment.json", '{"a": ["one", "two"]}')
    path.write_text(path.read_text().replace("type:str", "type:comment", 1))
    assert "its MAC does not fit" in str(refusal_of(path, tools.identity))


def test_a_changed_value_in_the_clear_is_found(tools: Tools) -> None:
    path = tools.sops("clear.json", '{"a": "one", "n_unencrypted": 1, "s_unencrypted": "x", "t_unencrypted": true}')
    whole = path.read_text()
    for old, new in (('"x"', '"y"'), (": 1,", ": 2,"), (": true", ": false")):
        path.write_text(whole.replace(old, new))
        assert isinstance(refusal_of(path, tools.identity), SecretFileTampered)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (r"type:str", "type:bool", "entry 1: its type was changed"),
        (r"type:str", "type:comment", "entry 1: a type of value that is not known"),
        (r"type:str", "type:other", "entry 1: a type of value that is not known"),
        (r"iv:[^,]+", "iv:AAAA", "entry 1: it is not sealed as SOPS does it"),
        (r"tag:[^,]+", "tag:AAAA", "entry 1: it is not sealed as SOPS does it"),
        (r"data:[^,]+", "data:A", "entry 1: it was changed"),
        (r'lastmodified": "2', 'lastmodified": "3', "the MAC: it was changed"),
        (r'"mac": "[^"]*"', '"mac": ""', "its MAC is missing"),
        (r'"mac": "[^"]*",', "", "its MAC is missing"),
        (r'"version"', '"mac_only_encrypted": true, "version"', "its MAC does not fit"),
    ],
)
def test_metadata_cannot_be_changed(tools: Tools, old: str, new: str, reason: str) -> None:
    path = tools.sops("meta.json", '{"a": "HUNTER2", "b_unencrypted": 1}')
    path.write_text(re.sub(old, new, path.read_text(), count=1))
    refusal = refusal_of(path, tools.identity)
    assert reason in str(refusal)
    assert "hunter2" not in str(refusal).lower()


@pytest.mark.parametrize("size_bytes", [0, 16, 31, 33])
def test_a_data_key_of_another_length_is_refused(tools: Tools, size_bytes: int) -> None:
    path = tools.sops("short.json", '{"a": "hunter2"}')
    tree = json.loads(path.read_text())
    sealed = tools.run("age", "-r", tools.recipient, "--armor", stdin=b"k" * size_bytes)
    tree["sops"]["age"][0]["enc"] = sealed.decode()
    path.write_text(json.dumps(tree))
    assert "its data key has the wrong length" in str(refusal_of(path, tools.identity))


# ---------------------------------------------------------------- what is not read


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"kms": [{"arn": "x", "enc": "y"}], "mac": "z"}, "not encrypted for any age recipient"),
        ({"age": [], "mac": "z"}, "not encrypted for any age recipient"),
        ({"age": [{"enc": 1}], "key_groups": [{}, {}], "mac": "z"}, "split among several groups"),
    ],
)
def test_other_keys_than_age_are_named(tools: Tools, tmp_path: Path, metadata: Any, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "ENC[]", "sops": metadata}))
    refusal = refusal_of(path, tools.identity)
    assert isinstance(refusal, SecretFileUnsupported)
    assert reason in str(refusal)


BOMB = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("l0: &l0 hunter2\n" + BOMB + "sops:\n  mac: x\n", "line 1: an anchor or alias"),
        ("a: *b\nsops:\n  mac: x\n", "line 1: an anchor or alias"),
        ("a: !!python/object/apply:os.system [hunter2]\nsops:\n  mac: x\n", "line 1: a tag"),
        ("a: !hunter2 x\nsops:\n  mac: x\n", "line 1: a tag"),
        ("a: hunter2\na: x\nsops:\n  mac: x\n", "line 2: a key that is no text, or stands there twice"),
        ("? [hunter2]\n: x\nsops:\n  mac: x\n", "line 1: a key that is no text"),
        ("a: 1\nsops:\n  mac: x\n---\nb: 1\nsops:\n  mac: x\n", "several YAML documents"),
        ("a: " + "[" * 100_000 + "\nsops:\n", "nests too deeply"),
        ("a: " + "{a: " * 100_000 + "\nsops:\n", "nests too deeply"),
        ("- " * 100_000 + "\nsops:\n", "nests too deeply"),
        ("a: [" + "1," * 30_000 + "]\nsops:\n  mac: x\n", "more than 20000 values"),
        ("a: 'hunter2\nsops:\n", "not YAML"),
        ("a: 1e999\nsops:\n  mac: x\n", "a number is too large"),
        ("sops:\n", "no metadata of SOPS"),
        ("sops: x\nsops:\n", "twice"),
    ],
)
def test_hostile_yaml_is_refused(tools: Tools, tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    refusal = refusal_of(path, tools.identity)
    assert isinstance(refusal, SecretFileMalformed)
    assert problem in str(refusal)
    assert "hunter2" not in str(refusal)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.env", "A=1\nhunter2\nsops_version=3\n", "line 2: not KEY=value"),
        ("a.env", "A=1\nA=hunter2\nsops_version=3\n", "line 2: a key stands there twice"),
        ("a.ini", "[a]\nhunter2\n[sops]\n", "line 2: not key = value"),
        ("a.ini", "[a]\nb=hunter2\nb=1\n[sops]\n", "line 3: a key stands there twice"),
        ("a.json", '{"sops": 1}', "no metadata of SOPS"),
        ("a.json", '{"sops": {"a":' + "[" * 100_000, "nests too deeply"),
    ],
)
def test_other_hostile_files_are_refused(tools: Tools, tmp_path: Path, name: str, text: str, problem: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    refusal = refusal_of(path, tools.identity)
    assert isinstance(refusal, SecretFileMalformed)
    assert problem in str(refusal)
    assert "hunter2" not in str(refusal)


def test_the_tools_say_the_same(tools: Tools) -> None:
    """What `sops` decrypts is what we read; it refuses what we refuse."""
    path = tools.sops("same.json", '{"a": {"b": "hunter2"}}')
    assert json.loads(tools.run("sops", "decrypt", str(path))) == {"a": {"b": "hunter2"}}
    path.write_text(path.read_text().replace('"b"', '"c"'))
    with pytest.raises(subprocess.CalledProcessError):
        tools.run("sops", "decrypt", str(path))
    assert isinstance(refusal_of(path, tools.identity), SecretFileTampered)
