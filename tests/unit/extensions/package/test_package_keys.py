"""Keys in files: who may read them, what is one, and which nobody should trust."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from magmobo.extensions.package import keys
from magmobo.extensions.package.errors import KeyRefused


def test_a_pair_is_written_and_read_back(tmp_path: Path) -> None:
    pair = keys.generate()
    public_file = keys.write_pair(pair, tmp_path / "my.key")
    assert stat.S_IMODE((tmp_path / "my.key").stat().st_mode) == 0o600
    assert keys.read_pair(tmp_path / "my.key") == pair
    assert keys.parse_public(public_file.read_text()) == pair.public
    assert keys.parse_public(base64.b64encode(pair.public).decode()) == pair.public
    assert pair.private.reveal() not in repr(pair)


def test_what_one_signs_only_its_key_confirms() -> None:
    pair, other = keys.generate(), keys.generate()
    signature = keys.signature_of(b"text", pair)
    assert keys.is_signature(signature, b"text", pair.public)
    assert not keys.is_signature(signature, b"texT", pair.public)
    assert not keys.is_signature(signature, b"text", other.public)
    assert not keys.is_signature(signature[:-1], b"text", pair.public)
    assert not keys.is_signature(b"", b"text", b"short")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    place = tmp_path / "my.key"
    keys.write_pair(keys.generate(), place)
    before = place.read_bytes()
    with pytest.raises(KeyRefused, match="there already"):
        keys.write_pair(keys.generate(), place)
    assert place.read_bytes() == before
    place.unlink()
    with pytest.raises(KeyRefused, match="there already"):
        keys.write_pair(keys.generate(), place)
    assert not place.exists(), "no private half without its public one"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    keys.write_pair(keys.generate(), tmp_path / "my.key")
    (tmp_path / "my.key").chmod(mode)
    with pytest.raises(KeyRefused, match="others may read"):
        keys.read_pair(tmp_path / "my.key")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "magx-private-1",
        "magx-private-2 " + "A" * 43 + "=",
        "A" * 44,
        "magx-public-1 " + "A" * 42 + "=",
        "a\nb\nc",
        "\0" * 40,
    ],
)
def test_what_is_no_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(KeyRefused):
        keys.read_pair(tmp_path / "k")
    with pytest.raises(KeyRefused):
        keys.parse_public(text)


def test_halves_are_not_mistaken_and_a_private_one_is_not_repeated(tmp_path: Path) -> None:
    pair = keys.generate()
    keys.write_pair(pair, tmp_path / "my.key")
    with pytest.raises(KeyRefused) as caught:
        keys.parse_public((tmp_path / "my.key").read_text())
    assert pair.private.reveal() not in str(caught.value)
    (tmp_path / "my.key.pub").chmod(0o600)
    with pytest.raises(KeyRefused, match="not a private key"):
        keys.read_pair(tmp_path / "my.key.pub")


def test_folders_and_pipes_are_no_keys(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "nowhere"):
        with pytest.raises(KeyRefused):
            keys.read_pair(place)


@pytest.mark.parametrize("point", sorted(keys._SMALL_ORDER))
@pytest.mark.parametrize("sign", [0, 0x80])
def test_a_key_for_which_anybody_can_sign_is_refused(point: bytes, sign: int) -> None:
    public = point[:31] + bytes([point[31] | sign])
    with pytest.raises(KeyRefused, match="anybody could sign"):
        keys.parse_public(base64.b64encode(public).decode())


def test_that_anybody_could_sign_for_such_a_key_is_so() -> None:
    """Else the list would guard against nothing: the neutral point and a zero are a signature of some texts."""
    forged = b"\1" + bytes(31) + bytes(32)
    for point in (bytes(32), b"\1" + bytes(31)):
        assert any(keys.is_signature(forged, f"text {one}".encode(), point) for one in range(200))
