"""What happens to the file of the vault on a bad disk and in bad hands: an error with a code of its own, never garbage.

Forgers here know the format, and compute every digest that needs no key.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec import json, structs
from tests.unit.kernel.vault_parts import KEY, OTHER_KEY, file_of, put, vault_in

from magmobo.contracts.errors import VaultUnavailable
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.vault import sheet
from magmobo.kernel.vault.errors import (
    VaultDamaged,
    VaultFormatUnknown,
    VaultKeyExposed,
    VaultKeyMissing,
    VaultKeyWrong,
    VaultTampered,
)
from magmobo.kernel.vault.file import LocalVault
from magmobo.kernel.vault.keys import Key

CONFIG = VaultConfig(key=KEY)
SECRETS = {"alpha": "one-secret", "beta": "two-secret", "gamma": "three-secret"}
Lines = list[bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound vault with three secrets, one of them in two versions."""
    vault = vault_in(tmp_path, CONFIG)
    put(vault, alpha="an older secret")
    put(vault, **SECRETS)
    return file_of(tmp_path)


def refusal(path: Path, raw: bytes, config: VaultConfig = CONFIG) -> VaultUnavailable | None:
    """How a new process refuses every use of these bytes; None when it reads and writes as if nothing was."""
    path.write_bytes(raw)
    found: list[VaultUnavailable | None] = []
    for use in (
        lambda vault: [vault.read(name) for name in SECRETS],
        lambda vault: vault.infos(),
        lambda vault: put(vault, alpha="new"),
        lambda vault: vault.remove("beta"),
        lambda vault: vault.rekey(above_generation=0),
    ):
        try:
            use(vault_in(path.parent.parent, config))
        except VaultUnavailable as error:
            found.append(error)
        else:
            found.append(None)
            break
    assert found[-1] is not None or len(found) == 1, "refused by some uses and not by others"
    if found[-1] is not None:
        assert path.read_bytes() == raw, "what cannot be read is left as it is"
    return found[0]


def forged(raw: bytes, change: Callable[[Lines], Lines]) -> bytes:
    """`raw` with other lines and a digest that fits them; the seal stays."""
    *lines, last = raw.splitlines(keepends=True)
    body = b"".join(change(lines))
    return body + json.encode({**json.decode(last), "sha256": sha256(body).hexdigest()}) + b"\n"


# ---------------------------------------------------------------- accidents


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    raw = path.read_bytes()
    codes = set()
    for place in range(len(raw)):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << random.Random(place).randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(VaultUnavailable) as caught:
            vault_in(path.parent.parent, CONFIG).read("alpha")
        codes.add(type(caught.value))
        assert "secret" not in str(caught.value).replace("one-secret", "")
    assert codes == {VaultDamaged, VaultTampered}, "the seal alone is covered by no digest"


def test_every_truncation_is_noticed(path: Path) -> None:
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(VaultDamaged):
            vault_in(path.parent.parent, CONFIG).read("alpha")


@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"\n\n", b"{}\n{}\n", b"null\nnull\n", b"[" * 200_000, b"\x00" * 4096, b"\xff\xfe\n\xff\n"]
)
def test_what_never_was_a_vault_is_damaged(path: Path, raw: bytes) -> None:
    assert isinstance(refusal(path, raw), VaultDamaged)


def test_something_appended_is_noticed(path: Path) -> None:
    raw = path.read_bytes()
    for more in (b"\n", b"x", b" ", raw, raw.splitlines(keepends=True)[1]):
        assert isinstance(refusal(path, raw + more), VaultDamaged)


def test_a_sound_file_is_not_refused(path: Path) -> None:
    assert refusal(path, path.read_bytes()) is None


def test_a_file_that_is_larger_than_a_vault_is_not_read_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "MAX_FILE_BYTES", path.stat().st_size - 1)
    assert isinstance(refusal(path, path.read_bytes()), VaultDamaged)


# ---------------------------------------------------------------- forgers without the key


FORGERIES: dict[str, Callable[[Lines], Lines]] = {
    "two entries change places": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "an entry goes": lambda lines: lines[:-1],
    "the newest version goes": lambda lines: [line for line in lines if b'"alpha","version":2' not in line],
    "an entry twice": lambda lines: [*lines, lines[-1]],
    "all entries go": lambda lines: lines[:1],
    "a value moves to another name": lambda lines: _moved(lines, "value"),
    "value and key move to another name": lambda lines: _moved(lines, "key", "value"),
    "another generation": lambda lines: [lines[0].replace(b'"generation":2', b'"generation":9'), *lines[1:]],
    "another vault": lambda lines: [lines[0].replace(b'"vault_id":"', b'"vault_id":"00'), *lines[1:]],
    "an older date": lambda lines: [line.replace(b'"at":"20', b'"at":"19') for line in lines],
}  # fmt: skip


def _moved(lines: Lines, *fields: str) -> Lines:
    source, target = json.decode(lines[-2]), json.decode(lines[-1])
    return [*lines[:-1], json.encode(target | {field: source[field] for field in fields}) + b"\n"]


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES)
def test_a_forger_without_the_key_breaks_the_seal(path: Path, change: Callable[[Lines], Lines]) -> None:
    raw = forged(path.read_bytes(), change)
    assert raw != path.read_bytes()
    assert isinstance(refusal(path, raw), VaultTampered)


def test_a_vault_of_the_forgers_own_asks_for_another_key(path: Path, tmp_path: Path) -> None:
    put(vault_in(tmp_path / "other", VaultConfig(key=OTHER_KEY)), alpha="forged", beta="forged", gamma="forged")
    assert isinstance(refusal(path, file_of(tmp_path / "other").read_bytes()), VaultKeyWrong)


def test_a_key_in_the_file_is_not_believed(path: Path, tmp_path: Path) -> None:
    """A forger claims that his file is under our key; the seal says that it is not."""
    put(vault_in(tmp_path / "other", VaultConfig(key=OTHER_KEY)), alpha="forged", beta="forged", gamma="forged")
    ours = json.decode(path.read_bytes().splitlines()[0])["key"]
    raw = forged(
        file_of(tmp_path / "other").read_bytes(),
        lambda lines: [json.encode(json.decode(lines[0]) | {"key": ours}) + b"\n", *lines[1:]],
    )
    assert isinstance(refusal(path, raw), VaultTampered)


@pytest.mark.parametrize(
    "scrypt",
    [{"log2_n": 30}, {"log2_n": 1}, {"log2_n": -1}, {"r": 10_000}, {"r": 0}, {"p": 1_000}, {"salt": ""},
     {"salt": "zz" * 16},
     {"salt": "00" * 100_000}, {"log2_n": "x"}, {"log2_n": 14}],
)  # fmt: skip
def test_a_forged_passphrase_cost_is_refused_at_once(tmp_path: Path, scrypt: dict[str, object]) -> None:
    config = VaultConfig(passphrase=Secret("p"))
    put(vault_in(tmp_path, config), **SECRETS)

    def change(lines: Lines) -> Lines:
        head = json.decode(lines[0])
        head["key"]["scrypt"] |= scrypt
        return [json.encode(head) + b"\n", *lines[1:]]

    raw = forged(file_of(tmp_path).read_bytes(), change)
    assert isinstance(refusal(file_of(tmp_path), raw, config), VaultDamaged | VaultKeyWrong)


def test_a_newer_format_is_no_damage(path: Path) -> None:
    newer = forged(path.read_bytes(), lambda lines: [b'{"magvault":2,"shape":"unheard of"}\n'])
    assert isinstance(refusal(path, newer), VaultFormatUnknown)


# ---------------------------------------------------------------- hands that have the key, and yet


def test_ciphertexts_are_bound_to_their_place(path: Path) -> None:
    """Whoever can seal a file, but not decrypt, still cannot give a secret another name, version or generation."""
    key = Key(bytes.fromhex(KEY.reveal()))
    found = sheet.parse(path.read_bytes())
    first, other = found.entries[0], found.entries[-1]
    for forgery in (
        structs.replace(first, name="delta"),
        structs.replace(first, version=7),
        structs.replace(first, generation=first.generation + 1),
        structs.replace(first, since="2000-01-01T00:00:00.000Z"),
        structs.replace(first, value=other.value),
        structs.replace(first, key=other.key),
        structs.replace(first, value=b""),
        structs.replace(first, key=first.value),
    ):
        with pytest.raises(VaultTampered):
            sheet.open_secret(forgery, found.head.vault_id, key)
    with pytest.raises(VaultTampered):
        sheet.open_secret(first, "00" * 16, key)
    assert sheet.open_secret(first, found.head.vault_id, key) == "an older secret"


def test_no_nonce_and_no_data_key_is_used_twice(path: Path) -> None:
    vault = vault_in(path.parent.parent, CONFIG)
    for _ in range(3):
        put(vault, alpha="the same", beta="the same")
    entries = sheet.parse(path.read_bytes()).entries
    for sealed in ([entry.key for entry in entries], [entry.value for entry in entries]):
        assert len({one[:12] for one in sealed}) == len(sealed)
    assert len({entry.value[12:] for entry in entries}) == len(entries)


# ---------------------------------------------------------------- what stands where the files should


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    put(vault_in(tmp_path), **SECRETS)
    key_file = tmp_path / "secrets" / "vault.key"
    for mode in (0o640, 0o604, 0o620, 0o777):
        key_file.chmod(mode)
        with pytest.raises(VaultKeyExposed, match=f"{mode:04o}"):
            vault_in(tmp_path).read("alpha")
    key_file.chmod(0o400)
    assert vault_in(tmp_path).read("alpha")[0] == "one-secret"


@pytest.mark.parametrize("content", ["", "zz" * 32, "11" * 31, "11" * 33, "ä" * 64, "11" * 32 + "\nmore"])
def test_a_key_file_without_a_key_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    put(vault_in(tmp_path), **SECRETS)
    key_file = tmp_path / "secrets" / "vault.key"
    key_file.write_text(content)
    for use in (lambda: vault_in(tmp_path).read("alpha"), lambda: put(vault_in(tmp_path), alpha="new")):
        with pytest.raises(VaultKeyWrong) as caught:
            use()
        assert content[:8] not in str(caught.value) or not content
    assert key_file.read_text() == content


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "unreadable folder"])
@pytest.mark.parametrize("where", ["vault/vault.mag", "secrets/vault.key"])
def test_a_file_that_is_none_is_an_error_and_nobody_waits(tmp_path: Path, where: str, what: str) -> None:
    put(vault_in(tmp_path), **SECRETS)
    place = tmp_path / where
    if what == "unreadable folder":
        place.parent.rename(tmp_path / "gone")
        place.parent.write_text("no folder")
    else:
        place.rename(tmp_path / "moved")
        if what == "link":
            place.symlink_to(tmp_path / "moved")
        elif what == "pipe":
            os.mkfifo(place)
        else:
            place.mkdir()
    with pytest.raises(VaultUnavailable) as caught:
        vault_in_as_it_is(tmp_path).read("alpha")
    assert what != "pipe" or "no regular file" in str(caught.value)
    with pytest.raises(VaultUnavailable):
        put(vault_in_as_it_is(tmp_path), alpha="new")


def vault_in_as_it_is(data_dir: Path) -> LocalVault:
    return LocalVault(VaultConfig(), data_dir)


def test_a_disk_that_is_full_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    vault = vault_in(path.parent.parent, CONFIG)
    vault.read("alpha")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VaultUnavailable, match="No space left"):
        put(vault, alpha="new")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert vault.read("alpha") == ("one-secret", 2)
    assert sorted(one.name for one in path.parent.iterdir()) == ["vault.lock", "vault.mag"]


def test_a_key_that_is_gone_after_it_was_used_is_missed_by_the_next_process_only(tmp_path: Path) -> None:
    vault = vault_in(tmp_path)
    put(vault, **SECRETS)
    (tmp_path / "secrets" / "vault.key").unlink()
    assert vault.read("alpha")[0] == "one-secret"
    with pytest.raises(VaultKeyMissing):
        vault_in(tmp_path).read("alpha")
