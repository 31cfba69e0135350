"""Packages that were made to be more than they seem: each is refused whole, with nothing written (cases 25 to 27).

The attacker here has a key that the node trusts, or changes a package on its way; both are tried where it matters.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.extensions.package.making import CODE, KEYS, PAIR, calm, folder, signed, text

from magmobo.contracts.errors import MagError
from magmobo.contracts.extensions import MAX_PACKAGE_BYTES
from magmobo.extensions.package.archive import MAX_FILES, MAX_UNPACKED_BYTES, read_archive, write_archive
from magmobo.extensions.package.build import pack, sign
from magmobo.extensions.package.errors import (
    ManifestRefused,
    PackageRefused,
    PackageUnsigned,
    SignatureRefused,
    SignerUnknown,
)
from magmobo.extensions.package.format import FileEntry, Index, digest, read_package
from magmobo.extensions.package.keys import generate, signature_of

FILES = {"extension.py": CODE.encode(), "manifest.json": text()}


def parts(files: dict[str, bytes] = FILES, **changed: object) -> dict[str, bytes]:
    """What an attacker with a trusted key can sign: an index of these files, and the files."""
    said: dict[str, object] = {"format": "magx/1", "id": "demo", "version": "1.0.0", "key_id": PAIR.key_id}
    entries = {path: FileEntry(digest(content), len(content)) for path, content in files.items()}
    index = Index(**{**said, "files": entries, **changed}).encoded()  # type: ignore[arg-type]
    return {"MAGX.json": index, "MAGX.sig": signature_of(index, PAIR), **files}


def refused(data: bytes, error: type[MagError] = PackageRefused, why: str | None = None) -> None:
    with pytest.raises(error, match=why):
        read_package(data, KEYS)


def test_what_the_attacks_start_from_is_accepted(tmp_path: Path) -> None:
    assert read_package(write_archive(parts()), KEYS).id == "demo"
    assert read_package(signed(tmp_path), KEYS).id == "demo"


# ---------------------------------------------------------------- 25: names


@pytest.mark.parametrize(
    "path",
    [
        *("../evil.py", "a/../../evil.py", "/etc/cron.d/evil", "a//b", "a/./b", "./a", "a/", "..", "."),
        *("..\\evil.py", "C:\\evil.py", "C:evil", "a\\b", "a\0.py", "a\n.py", "a b", "ünï.py", "lib\u2024py"),
        *(".bashrc", "a/.git/config", "-rf", "con.", "x" * 201, "/".join("a" * 13), "~root/x"),
        *("a:b", "a*b", "a\u202eyp.x"),
        *("evil.so", "evil.cpython-311-x86_64-linux-gnu.so", "x.PYC", "lib/x.pyd"),
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(path: str) -> None:
    refused(write_archive(parts({**FILES, path: b"x"})))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("a.py", "A.py"),
        ("lib/x.py", "LIB/x.py"),
        ("a", "a/b.py"),
        ("A", "a/b.py"),
        ("a/b/c", "a/B"),
        ("extension.py", "Extension.py"),
    ],
)
def test_two_names_for_one_file_are_refused(one: str, two: str) -> None:
    for first, second in ((one, two), (two, one)):
        refused(write_archive(parts({**FILES, first: b"1", second: b"2"})), why="case does not count")


def renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    return data.replace(old, new)


def test_a_name_that_is_there_twice_is_refused() -> None:
    data = write_archive(parts({**FILES, "extensiom.py": b"import os\n"}))
    refused(renamed(data, b"extensiom.py", b"extension.py"), why="twice")


def test_a_name_that_differs_between_the_headers_is_refused() -> None:
    data = write_archive(parts())
    place = data.rindex(b"extension.py", 0, end_of(data)[2])
    refused(data[:place] + b"extensiom.py" + data[place + 12 :], why="not as `mag extension:pack` writes it")


def with_zipfile(change: Callable[[zipfile.ZipInfo], object], **options: int) -> bytes:
    """The same parts by another program, with one entry that is not plain."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for path, content in parts().items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100644 << 16
            if path == "extension.py":
                change(entry)
            archive.writestr(entry, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: setattr(entry, "external_attr", 0o120777 << 16),
        lambda entry: setattr(entry, "external_attr", 0o104755 << 16),
        lambda entry: setattr(entry, "external_attr", 0o020666 << 16),
        lambda entry: setattr(entry, "external_attr", 0x10),
        lambda entry: setattr(entry, "extra", struct.pack("<HHBI", 0x7075, 9, 1, 0) + b"a.py"),
        lambda entry: setattr(entry, "comment", b"hello"),
        lambda entry: setattr(entry, "date_time", (2026, 1, 1, 0, 0, 0)),
        lambda entry: setattr(entry, "compress_type", zipfile.ZIP_BZIP2),
        lambda entry: setattr(entry, "compress_type", zipfile.ZIP_LZMA),
        lambda entry: setattr(entry, "create_system", 0),
    ],
    ids=["link", "setuid", "device", "folder", "second-name", "comment", "time", "bzip2", "lzma", "dos"],
)
def test_an_entry_that_is_more_than_a_plain_file_is_refused(change: Callable[[zipfile.ZipInfo], object]) -> None:
    refused(with_zipfile(change), why="not as `mag extension:pack` writes it")


# ---------------------------------------------------------------- 25, 26: archives that mean several things


def end_of(data: bytes) -> tuple[int, int, int]:
    """Count of entries, size and place of the directory."""
    count, size, place = struct.unpack("<HII", data[-12:-2])
    return count, size, place


def test_nothing_may_stand_before_between_or_behind() -> None:
    data = write_archive(parts())
    _, _, place = end_of(data)
    second = write_archive(parts({**FILES, "extension.py": b"evil = 1\n"}))
    for crafted in (
        b"#!/bin/sh\n" + data,
        data + b"x",
        data + data,
        second + data,
        data[:place] + b"x" * 10 + data[place:],
        data[:-2] + struct.pack("<H", 5) + b"hello",
        data[:-2] + struct.pack("<H", len(second)) + second,
        b"PK\5\6" + bytes(18),
        data[:-1],
        data[22:],
        b"",
        b"PK",
    ):
        refused(crafted)


def test_files_may_not_overlap() -> None:
    """One heap of data under many names: a bomb of quadratic size that adds nothing to each file's own ratio."""
    data = write_archive(parts({**FILES, "heap.txt": b"x" * 60_000}))
    count, size, place = end_of(data)
    directory = data[place : place + size]
    last = directory[directory.rindex(b"PK\1\2") :]
    clones = b"".join(renamed(last, b"heap.txt", b"hea%d.txt" % number) for number in range(9))
    crafted = data[:place] + directory + clones
    crafted += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count + 9, count + 9, size + len(clones), place, 0)
    refused(crafted)


@pytest.mark.parametrize("field", ["crc", "stored", "size", "offset", "disk", "version", "method", "flags"])
def test_a_directory_that_lies_is_refused(field: str) -> None:
    data = bytearray(write_archive(parts()))
    place = bytes(data).rindex(b"PK\1\2")
    at = {"crc": 16, "stored": 20, "size": 24, "offset": 42, "disk": 34, "version": 6, "method": 10, "flags": 8}[field]
    data[place + at] ^= 1
    refused(bytes(data))


@pytest.mark.parametrize("said", [0, 10, 99, 101, 5_000, 0xFFFFFFFF])
def test_a_size_that_lies_in_both_headers_is_refused(said: int) -> None:
    content = b"x" * 100
    data = bytearray(write_archive(parts({**FILES, "x.txt": content})))
    raw = bytes(data)
    for mark, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = next(
            place for place in range(len(raw)) if raw.startswith(mark, place) and b"x.txt" in raw[place : place + 60]
            and raw[place + at : place + at + 4] == struct.pack("<I", 100)
        )  # fmt: skip
        data[place + at : place + at + 4] = struct.pack("<I", said)
    refused(bytes(data))


def test_a_stream_with_something_behind_its_end_is_refused() -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    stored = deflater.compress(b"y" * 500) + deflater.flush()
    data = write_archive(parts({**FILES, "y.txt": b"y" * 500}))
    assert stored in data
    longer = _resized(data, b"y.txt", stored, stored + b"evil")
    refused(longer, why="not as long as its entry says")
    refused(_resized(data, b"y.txt", stored, stored[:-1]))


def _resized(data: bytes, name: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with other stored bytes for its last file, and sizes that fit."""
    count, size, place = end_of(data)
    body, directory = data[:place].replace(old, new), bytearray(data[place : place + size])
    local = body.rindex(b"PK\3\4")
    assert body[local + 30 : local + 30 + len(name)] == name
    body = body[: local + 18] + struct.pack("<I", len(new)) + body[local + 22 :]
    entry = bytes(directory).rindex(b"PK\1\2")
    directory[entry + 20 : entry + 24] = struct.pack("<I", len(new))
    return body + bytes(directory) + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size, len(body), 0)


def with_end(data: bytes, *, directory_bytes: int = 0, place: int = 0) -> bytes:
    """The archive with an end that says more."""
    count, size, at = end_of(data)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size + directory_bytes, at + place, 0)
    return data[:-22] + end


def test_a_gap_that_the_end_accounts_for_is_refused() -> None:
    data = write_archive(parts())
    _, _, place = end_of(data)
    refused(with_end(data[:place] + b"x" * 10 + data[place:], place=10), why="does not add up")
    refused(with_end(data[:-22] + b"x" * 10 + data[-22:], directory_bytes=10), why="does not add up")
    for change in ({"directory_bytes": 1}, {"directory_bytes": -1}, {"place": 1}, {"place": -1}):
        refused(with_end(data, **change))


def test_a_checksum_that_both_headers_agree_on_must_be_right() -> None:
    data = write_archive(parts({**FILES, "x.txt": b"x" * 20}))
    right, wrong = (struct.pack("<I", zlib.crc32(b"x" * 20) ^ flip) for flip in (0, 1))
    assert data.count(right) == 2
    refused(data.replace(right, wrong), why="damaged")


# ---------------------------------------------------------------- 26: bombs


def test_a_bomb_is_refused_without_being_inflated() -> None:
    bombs = {
        "one": {"zeros.bin": bytes(40_000_000)},
        "many": {f"zeros{one}.bin": bytes(3_000_000) for one in range(12)},
        "few": {f"zeros{one}.bin": bytes(3_000_000) for one in range(3)},
        "fair": {f"lines{one}.txt": (b"%d\n" % one) * 1_300_000 for one in range(12)},
    }
    crafted = [write_archive(parts({**FILES, **files})) for files in bombs.values()]
    crafted.append(_understated(write_archive(parts({**FILES, "zeros.bin": bytes(40_000_000)})), 1_000))
    tracemalloc.start()
    try:
        for data in crafted:
            assert len(data) < 400_000
            refused(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8_000_000


def _understated(data: bytes, said_bytes: int) -> bytes:
    """A bomb whose last file's headers tell a small size."""
    _, _, place = end_of(data)
    changed = bytearray(data)
    for at in (data.rindex(b"PK\3\4", 0, place) + 22, data.rindex(b"PK\1\2") + 24):
        changed[at : at + 4] = struct.pack("<I", said_bytes)
    return bytes(changed)


def test_the_whole_is_bounded_too() -> None:
    noise = {f"n{one}": os.urandom(200_000) + b"0," * 1_800_000 for one in range(9)}
    assert sum(map(len, noise.values())) > MAX_UNPACKED_BYTES
    refused(write_archive(parts({**FILES, **noise})), why="its files would take")
    refused(write_archive(parts({**FILES, **{f"f{one}": b"" for one in range(MAX_FILES)}})), why="more than")
    refused(bytes(MAX_PACKAGE_BYTES + 1), why="at most")


# ---------------------------------------------------------------- 27: what was signed


def test_a_file_that_was_changed_added_or_taken_away_is_refused() -> None:
    good = parts()
    evil = {**good, "extension.py": good["extension.py"].replace(b"ext", b"exT")}
    refused(write_archive(evil), why="not the file that its index names")
    refused(write_archive({**good, "sitecustomize.py": b"import os"}), why="not in its index")
    refused(
        write_archive({path: content for path, content in good.items() if path != "extension.py"}), why="is missing"
    )
    refused(write_archive(parts({"extension.py": b""})), why="no manifest")


def test_a_changed_index_does_not_fit_its_signature() -> None:
    good, other = parts(), {**FILES, "extension.py": b"evil = 1\n"}
    index = parts(other)["MAGX.json"]
    refused(write_archive({**good, **other, "MAGX.json": index}), SignatureRefused)


def test_who_signs_must_be_trusted_and_be_who_they_say() -> None:
    stranger = generate()
    index = Index(format="magx/1", id="demo", version="1.0.0", key_id=stranger.key_id, files={}).encoded()
    refused(
        write_archive({"MAGX.json": index, "MAGX.sig": signature_of(index, stranger)}), SignerUnknown, stranger.key_id
    )
    good = parts()
    refused(write_archive({**good, "MAGX.sig": signature_of(good["MAGX.json"], stranger)}), SignatureRefused)
    for signature in (b"x" * 64, good["MAGX.sig"] + b"\0", good["MAGX.sig"][:63]):
        refused(write_archive({**good, "MAGX.sig": signature}), SignatureRefused)


def test_the_unsigned_is_refused_however_it_says_so(tmp_path: Path) -> None:
    refused(pack(folder(tmp_path)), PackageUnsigned)
    good = parts()
    refused(write_archive({path: content for path, content in good.items() if path != "MAGX.sig"}), PackageUnsigned)
    refused(write_archive({**good, "MAGX.sig": b""}), PackageUnsigned)
    refused(write_archive(parts(key_id="")), PackageUnsigned)
    refused(write_archive(dict(FILES)), PackageRefused, r"no MAGX\.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.replace(b"{", b"{ ", 1),
        lambda index: index.replace(b'"id":"demo"', b'"id":"demo","id":"demo"'),
        lambda index: index[:-1] + b',"more":1}',
        lambda index: index.replace(b'"magx/1"', b'"magx/2"'),
        lambda index: index.replace(b"sha256", b"sha257"),
        lambda index: json.dumps(json.loads(index), indent=1).encode(),
        lambda index: b"[" * 50_000,
        lambda index: b"\xff" + index,
        lambda index: index.replace(PAIR.key_id.encode(), PAIR.key_id.upper().encode()),
    ],
)
def test_an_index_in_another_form_is_refused_though_it_is_signed(change: Callable[[bytes], bytes]) -> None:
    index = change(parts()["MAGX.json"])
    refused(write_archive({**parts(), "MAGX.json": index, "MAGX.sig": signature_of(index, PAIR)}))


def test_the_index_and_the_manifest_must_be_of_one_extension() -> None:
    refused(write_archive(parts(id="other")), why="another extension or version")
    refused(write_archive(parts(version="9.0.0")), why="another extension or version")


def test_a_bad_manifest_in_a_signed_package_is_refused() -> None:
    refused(write_archive(parts({**FILES, "manifest.json": b"[" * 60_000})), ManifestRefused)
    refused(write_archive(parts({**FILES, "manifest.json": text(id="Demo")})), ManifestRefused)


# ---------------------------------------------------------------- anything


@settings(calm, max_examples=300)
@given(st.data())
def test_a_package_with_any_bytes_changed_is_refused(data: st.DataObject) -> None:
    good = write_archive(parts())
    changed = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    if bytes(changed) != good:
        with pytest.raises(MagError):
            read_package(bytes(changed), KEYS)


@calm
@given(st.binary(max_size=400).map(lambda tail: b"PK\3\4" + tail) | st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PackageRefused):
        read_archive(data)


@calm
@given(st.integers(0, 2_000))
def test_a_package_that_was_cut_is_refused(length: int) -> None:
    good = write_archive(parts())
    if length < len(good):
        with pytest.raises(PackageRefused):
            read_package(good[:length], KEYS)


def test_signing_what_is_crafted_is_refused_too() -> None:
    with pytest.raises(PackageRefused):
        sign(write_archive(parts(id="other")), PAIR)
