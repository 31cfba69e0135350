"""The local vault against a dictionary, and the ways of its keys. The file is real, and so are the keys."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.kernel.vault_parts import CHEAP, KEY, OTHER_KEY, file_of, put, vault_in

from magmobo.contracts.errors import SecretUnknown, VaultUnavailable
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.vault import disk, keys
from magmobo.kernel.vault.driver import MAX_SECRET_BYTES
from magmobo.kernel.vault.errors import RekeyRefused, SecretRefused, VaultBusy, VaultKeyMissing, VaultKeyWrong
from magmobo.kernel.vault.file import LocalVault
from magmobo.kernel.vault.opening import open_vault

NAMES = st.sampled_from(["a", "b", "db.password", "0-x_y.z"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
CONFIGS = st.builds(
    VaultConfig, key=st.sampled_from([None, KEY, OTHER_KEY]), versions=st.integers(min_value=1, max_value=4)
)


@pytest.fixture(autouse=True)
def _cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "COST", CHEAP)


class AgainstADictionary(RuleBasedStateMachine):
    """Whatever is done, in one process or the next, the vault holds what a dictionary would."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.config = VaultConfig(versions=3)
        self.vault = vault_in(Path(self.scratch.name), self.config)
        self.model: dict[str, list[tuple[int, str]]] = {}
        self.pins: dict[str, set[int]] = {}
        self.generation = 0

    def teardown(self) -> None:
        self.scratch.cleanup()

    @rule(secrets=st.dictionaries(NAMES, TEXTS, min_size=1, max_size=3))
    def write(self, secrets: dict[str, str]) -> None:
        infos = self.vault.write(secrets, pinned=self.pins)
        assert [info.name for info in infos] == list(secrets)
        for name, text in secrets.items():
            versions = self.model.setdefault(name, [])
            versions.append((versions[-1][0] + 1 if versions else 1, text))
            newest = versions[-self.config.versions :]
            versions[:] = [one for one in versions if one in newest or one[0] in self.pins.get(name, ())]
        self.generation += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.pins[name] = {data.draw(st.sampled_from([version for version, _ in self.model[name]]))}

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if name in self.model:
            self.vault.remove(name)
            del self.model[name]
            self.pins.pop(name, None)
            self.generation += 1
        else:
            with pytest.raises(SecretUnknown):
                self.vault.remove(name)

    @rule()
    def open_anew(self) -> None:
        self.vault = vault_in(Path(self.scratch.name), self.config)

    @rule(config=CONFIGS)
    def reconfigure(self, config: VaultConfig) -> None:
        moves = self.generation > 0 and config.key != self.config.key
        self.vault.reconfigure(config)
        self.config, self.generation = config, self.generation + moves

    @precondition(lambda self: self.config.key is None)
    @rule(above=st.integers(min_value=0, max_value=50))
    def rekey(self, above: int) -> None:
        self.vault.rekey(above_generation=above)
        self.generation = max(self.generation, above) + 1

    @invariant()
    def holds_the_same(self) -> None:
        assert {info.name: list(info.versions) for info in self.vault.infos()} == {
            name: [version for version, _ in versions] for name, versions in self.model.items()
        }
        for name, versions in self.model.items():
            assert self.vault.read(name) == (versions[-1][1], versions[-1][0])
            for version, text in versions:
                assert self.vault.read(name, version) == (text, version)
        mark = self.vault.mark()
        assert (mark.generation if mark is not None else 0) == self.generation

    @invariant()
    def shows_nothing(self) -> None:
        if file_of(Path(self.scratch.name)).exists():
            raw = file_of(Path(self.scratch.name)).read_bytes()
            long = [text for versions in self.model.values() for _, text in versions if len(text.encode()) > 8]
            assert not [text for text in long if text.encode() in raw]


TestAgainstADictionary = AgainstADictionary.TestCase
TestAgainstADictionary.settings = hypothesis_settings(max_examples=25, stateful_step_count=20, deadline=None)


# ---------------------------------------------------------------- what is kept where


def test_a_vault_that_was_never_written_is_empty_and_makes_nothing(tmp_path: Path) -> None:
    vault = vault_in(tmp_path)
    with pytest.raises(SecretUnknown):
        vault.read("a")
    assert not vault.infos()
    assert vault.mark() is None
    assert not list((tmp_path / "secrets").iterdir())
    assert not (tmp_path / "vault").exists()


def test_everything_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        put(vault_in(tmp_path), a="x")
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
        if path.name != "secrets"
    }
    assert modes == {"vault": 0o700, "vault/vault.mag": 0o600, "vault/vault.lock": 0o600, "secrets/vault.key": 0o600}


def test_file_and_folder_are_on_disk_before_a_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    put(vault_in(tmp_path), a="x")
    assert synced == [tmp_path.name, ".vault.key.tmp", "secrets", ".vault.mag.tmp", "vault"]


def test_a_secret_says_when_it_was_made_and_changed(tmp_path: Path) -> None:
    now_s = [1_700_000_000.0]
    (tmp_path / "secrets").mkdir()
    vault = LocalVault(VaultConfig(versions=1), tmp_path, time_s=lambda: now_s[0])
    put(vault, a="x")
    now_s[0] += 3600
    [info] = vault.write({"a": "y"}, pinned={})
    assert (info.created_at, info.changed_at) == ("2023-11-14T22:13:20.000Z", "2023-11-14T23:13:20.000Z")
    assert (info.version, tuple(info.versions)) == (2, (2,))
    with pytest.raises(SecretUnknown, match="version 1"):
        vault.read("a", 1)


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a/b", "a\n", "ä", "x" * 101])
def test_a_bad_name_stores_nothing(tmp_path: Path, name: str) -> None:
    vault = vault_in(tmp_path)
    with pytest.raises(SecretRefused):
        vault.write({"good": "x", name: "y"}, pinned={})
    assert vault.mark() is None


@pytest.mark.parametrize("text", ["", "x" * (MAX_SECRET_BYTES + 1), "ä" * (MAX_SECRET_BYTES // 2 + 1), "\ud800"])
def test_a_text_that_cannot_be_kept_stores_nothing(tmp_path: Path, text: str) -> None:
    vault = vault_in(tmp_path)
    with pytest.raises(SecretRefused) as caught:
        vault.write({"good": "x", "bad": text}, pinned={})
    assert vault.mark() is None
    assert "ää" not in str(caught.value)
    put(vault, longest="x" * MAX_SECRET_BYTES)
    assert vault.read("longest")[0] == "x" * MAX_SECRET_BYTES


def test_a_vault_does_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = vault_in(tmp_path)
    put(vault, a="x")
    monkeypatch.setattr("magmobo.kernel.vault.sheet.MAX_FILE_BYTES", 4_000)
    with pytest.raises(SecretRefused, match="larger than"):
        put(vault, b="y" * 4_000)
    assert vault.read("a") == ("x", 1)
    assert [info.name for info in vault_in(tmp_path).infos()] == ["a"]


def test_two_processes_do_not_write_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = vault_in(tmp_path)
    put(vault, a="x")
    monkeypatch.setattr(disk, "LOCK_TIMEOUT_S", 0.0)
    with disk.locked(tmp_path / "vault" / "vault.lock"):
        with pytest.raises(VaultBusy):
            put(vault, a="y")
        assert vault.read("a") == ("x", 1)
    put(vault, a="y")


def test_writers_of_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    put(vault_in(tmp_path, VaultConfig(versions=100)), a="first")
    program = (
        "import sys; from pathlib import Path; from tests.unit.kernel.vault_parts import put, vault_in\n"
        "from magmobo.kernel.config.core import VaultConfig\n"
        "vault = vault_in(Path(sys.argv[1]), VaultConfig(versions=100))\n"
        "for n in range(30): put(vault, a=sys.argv[2] + str(n))\n"
    )
    here = Path(__file__).parents[3]
    writers = [subprocess.Popen([sys.executable, "-c", program, tmp_path, who], cwd=here) for who in ("p", "q")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    vault = vault_in(tmp_path)
    [info] = vault.infos()
    texts = [vault.read("a", version)[0] for version in info.versions]
    assert sorted(texts[1:]) == sorted(who + str(n) for who in "pq" for n in range(30))


def test_many_threads_may_use_one_vault(tmp_path: Path) -> None:
    vault = vault_in(tmp_path, VaultConfig(versions=100))
    put(vault, a="first")
    failures: list[BaseException] = []

    def work(who: str) -> None:
        try:
            for n in range(15):
                put(vault, a=f"{who}{n}")
                assert vault.read("a")[1] > n
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in "pqrs"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert vault.read("a")[1] == 61


def test_what_another_process_writes_is_seen(tmp_path: Path) -> None:
    ours, theirs = vault_in(tmp_path), vault_in(tmp_path, VaultConfig(versions=1))  # the file keeps its size
    put(theirs, a="one")
    for number, text in enumerate(("two", "six", "ten"), start=2):
        put(theirs, a=text)
        assert ours.read("a") == (text, number)
    theirs.remove("a")
    assert not ours.infos()


# ---------------------------------------------------------------- keys


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    put(vault_in(tmp_path, VaultConfig(key=KEY)), a="x")
    for config in (
        VaultConfig(key=OTHER_KEY),
        VaultConfig(passphrase=Secret("p")),
        VaultConfig(),
    ):
        stranger = vault_in(tmp_path, config)
        for use in (lambda: stranger.read("a"), stranger.infos, lambda: put(stranger, a="y")):  # noqa: B023
            with pytest.raises((VaultKeyWrong, VaultKeyMissing)):
                use()
    assert vault_in(tmp_path, VaultConfig(key=KEY)).read("a") == ("x", 1)


def test_a_passphrase_opens_what_it_closed(tmp_path: Path) -> None:
    config = VaultConfig(passphrase=Secret("correct horse ä"))
    put(vault_in(tmp_path, config), a="x")
    again = vault_in(tmp_path, config)
    put(again, b="y")
    assert (again.read("a")[0], again.read("b")[0]) == ("x", "y")
    assert not (tmp_path / "secrets" / "vault.key").exists()
    with pytest.raises(VaultKeyWrong):
        vault_in(tmp_path, VaultConfig(passphrase=Secret("correct horse"))).read("a")
    with pytest.raises(VaultKeyMissing, match=r"vault\.passphrase is not set"):
        vault_in(tmp_path).read("a")


def test_a_passphrase_has_another_key_in_every_vault(tmp_path: Path) -> None:
    config = VaultConfig(passphrase=Secret("p"))
    for folder in ("one", "two"):
        put(vault_in(tmp_path / folder, config), a="x")
    heads = {file_of(tmp_path / folder).read_bytes().split(b'"salt":"')[1][:32] for folder in ("one", "two")}
    assert len(heads) == 2


def test_a_key_file_that_is_gone_is_said(tmp_path: Path) -> None:
    put(vault_in(tmp_path), a="x")
    (tmp_path / "secrets" / "vault.key").unlink()
    with pytest.raises(VaultKeyMissing, match=r"secrets/vault\.key"):
        vault_in(tmp_path).read("a")
    with pytest.raises(VaultKeyMissing):
        put(vault_in(tmp_path), a="y")
    assert not (tmp_path / "secrets" / "vault.key").exists(), "a new key would hide that the old one is lost"


ALL_SOURCES: list[Any] = [
    VaultConfig(), VaultConfig(key=KEY), VaultConfig(key=OTHER_KEY), VaultConfig(passphrase=Secret("one")),
    VaultConfig(passphrase=Secret("two")),
]  # fmt: skip


@pytest.mark.parametrize("before", ALL_SOURCES, ids=range(5))
@pytest.mark.parametrize("after", ALL_SOURCES, ids=range(5))
def test_a_vault_moves_from_any_key_to_any_other(tmp_path: Path, before: VaultConfig, after: VaultConfig) -> None:
    vault = vault_in(tmp_path, before)
    put(vault, a="x", b="y")
    vault.reconfigure(after)
    assert vault.read("a") == ("x", 1)
    anew = vault_in(tmp_path, after)
    assert (anew.read("a"), anew.read("b")) == (("x", 1), ("y", 1))
    wants_file = after == VaultConfig()
    assert (tmp_path / "secrets" / "vault.key").exists() == wants_file
    if before != after and not wants_file:
        with pytest.raises((VaultKeyWrong, VaultKeyMissing)):
            vault_in(tmp_path, before).read("a")


def test_a_vault_moves_to_a_key_that_was_set_while_no_node_ran(tmp_path: Path) -> None:
    put(vault_in(tmp_path), a="x")
    moved = vault_in(tmp_path, VaultConfig(key=KEY))
    assert moved.read("a") == ("x", 1)
    put(moved, b="y")
    assert not (tmp_path / "secrets" / "vault.key").exists()
    assert vault_in(tmp_path, VaultConfig(key=KEY)).read("a") == ("x", 1)


def test_a_key_that_belongs_to_something_else_is_left_alone(tmp_path: Path) -> None:
    put(vault_in(tmp_path), a="x")
    kept = (tmp_path / "secrets" / "vault.key").read_bytes()
    file_of(tmp_path).unlink()
    put(vault_in(tmp_path, VaultConfig(key=KEY)), a="y")
    assert (tmp_path / "secrets" / "vault.key").read_bytes() == kept


def test_a_wrong_key_is_mended_by_the_settings_that_have_the_right_one(tmp_path: Path) -> None:
    put(vault_in(tmp_path, VaultConfig(key=KEY)), a="x")
    vault = vault_in(tmp_path, VaultConfig(key=OTHER_KEY))
    with pytest.raises(VaultKeyWrong):
        vault.reconfigure(VaultConfig(passphrase=Secret("p")))
    with pytest.raises(VaultKeyWrong):
        vault.read("a")
    vault.reconfigure(VaultConfig(key=KEY))
    assert vault.read("a") == ("x", 1)


def test_a_move_to_another_key_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = VaultConfig(key=KEY, versions=2)
    vault = vault_in(tmp_path, config)
    put(vault, a="x")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VaultUnavailable):
        vault.reconfigure(VaultConfig(passphrase=Secret("p"), versions=1))
    monkeypatch.undo()
    assert vault.key_source == "the setting vault.key"
    put(vault, a="y")
    assert [list(info.versions) for info in vault_in(tmp_path, config).infos()] == [[1, 2]]


def test_rekey_makes_another_key_and_other_ciphertext(tmp_path: Path) -> None:
    vault = vault_in(tmp_path)
    put(vault, a="x")
    put(vault, a="y")
    old_key, old_file = (tmp_path / "secrets" / "vault.key").read_bytes(), file_of(tmp_path).read_bytes()
    vault.rekey(above_generation=0)
    assert (tmp_path / "secrets" / "vault.key").read_bytes() != old_key
    assert not (tmp_path / "secrets" / "vault.key.new").exists()
    old = {part for part in old_file.split(b'"') if len(part) > 40}
    assert not [part for part in old if part in file_of(tmp_path).read_bytes()]
    assert vault_in(tmp_path).read("a", 1) == ("x", 1)


def test_rekey_of_a_key_in_the_settings_is_refused_unless_it_is_another(tmp_path: Path) -> None:
    vault = vault_in(tmp_path, VaultConfig(key=KEY))
    put(vault, a="x")
    before = file_of(tmp_path).read_bytes()
    with pytest.raises(RekeyRefused):
        vault.rekey(above_generation=0)
    assert file_of(tmp_path).read_bytes() == before


def test_rekey_of_a_passphrase_takes_another_salt(tmp_path: Path) -> None:
    config = VaultConfig(passphrase=Secret("p"))
    vault = vault_in(tmp_path, config)
    put(vault, a="x")
    before = vault.mark()
    vault.rekey(above_generation=0)
    assert vault.mark() != before
    assert vault_in(tmp_path, config).read("a") == ("x", 1)


@pytest.mark.parametrize("moment", ["before the vault", "after the vault"])
def test_a_rekey_that_was_cut_off_leaves_the_vault_readable(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = vault_in(tmp_path)
    put(vault, a="x")
    if moment == "before the vault":
        monkeypatch.setattr("magmobo.kernel.vault.file.write_durably", _cut_off)
    else:
        monkeypatch.setattr(keys.KeyRing, "settle", _cut_off)
    with pytest.raises(KeyboardInterrupt):
        vault.rekey(above_generation=0)
    monkeypatch.undo()
    assert (tmp_path / "secrets" / "vault.key.new").exists()
    assert vault_in(tmp_path).read("a") == ("x", 1)
    monkeypatch.setattr("magmobo.kernel.vault.file.write_durably", _cut_off)
    with pytest.raises(KeyboardInterrupt):
        vault_in(tmp_path).rekey(above_generation=0)
    monkeypatch.undo()
    assert vault_in(tmp_path).read("a") == ("x", 1), "the only key that opens it was written over"
    again = vault_in(tmp_path)
    put(again, b="y")
    again.rekey(above_generation=0)
    assert not (tmp_path / "secrets" / "vault.key.new").exists()
    assert vault_in(tmp_path).read("a") == ("x", 1)


def _cut_off(*_: object) -> None:
    raise KeyboardInterrupt


# ---------------------------------------------------------------- before there is a kernel


def test_opening_a_vault_loads_and_makes_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from magmobo.kernel.config.core import VaultConfig\n"
        "from magmobo.kernel.vault.opening import open_vault\n"
        "vault = open_vault(VaultConfig(), Path(sys.argv[1])); vault.mark(); vault.infos()\n"
        "vault.reconfigure(VaultConfig()); vault.close()\n"
        "print(*sorted(name for name in sys.modules if 'vault' in name or name == 'cryptography'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["magmobo.kernel.vault", "magmobo.kernel.vault.opening"]
    assert not list(tmp_path.iterdir())


def test_a_vault_that_is_opened_late_is_the_same_vault(tmp_path: Path) -> None:
    put(vault_in(tmp_path), a="x")
    late = open_vault(VaultConfig(), tmp_path)
    assert late.name == "local"
    assert late.mark() == vault_in(tmp_path).mark()
    assert late.read("a") == ("x", 1)
    late.reconfigure(VaultConfig(key=KEY, versions=1))
    assert late.key_source == "the setting vault.key"
    late.write({"a": "y"}, pinned={})
    assert [list(info.versions) for info in late.infos()] == [[2]]
    late.close()
    assert vault_in(tmp_path, VaultConfig(key=KEY)).read("a") == ("y", 2)


def test_settings_that_changed_before_the_first_use_count(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    late = open_vault(VaultConfig(), tmp_path)
    late.reconfigure(VaultConfig(versions=1))
    for text in ("x", "y"):
        late.write({"a": text}, pinned={})
    assert [list(info.versions) for info in late.infos()] == [[2]]


def test_a_key_that_changed_before_the_first_use_still_moves_the_vault(tmp_path: Path) -> None:
    put(vault_in(tmp_path, VaultConfig(key=KEY)), a="x")
    late = open_vault(VaultConfig(key=KEY), tmp_path)
    late.reconfigure(VaultConfig(key=OTHER_KEY))
    assert vault_in(tmp_path, VaultConfig(key=OTHER_KEY)).read("a") == ("x", 1)
    late.remove("a")
    assert not late.infos()
