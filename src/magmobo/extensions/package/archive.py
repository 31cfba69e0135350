"""The zip archive of a package: one way to write it, and a reader that takes nothing else.

Every header is compared, byte for byte, with the one that we would have written for that name and size: so there are no
links, no attributes, no comments, no extra fields, no second directory, nothing in front, between or behind, and no two
readings of one file. Sizes are added up before anything is inflated, and inflating stops at the size that was
announced. Boundary: bytes in memory; nothing touches a disk.
Source: APPNOTE.TXT 6.3.10 (zip), sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from magmobo.contracts.extensions import MAX_PACKAGE_BYTES
from magmobo.extensions.package.errors import PackageRefused
from magmobo.extensions.package.paths import check_paths, path_problem

MAX_FILES = 2_000
MAX_FILE_BYTES = 4 * 1_048_576
MAX_UNPACKED_BYTES = 32 * 1_048_576
MAX_RATIO = 100
RATIO_FREE_BYTES = 65_536
"""A file may be this much larger than `MAX_RATIO` times what is stored: small files compress well."""
_STORED, _DEFLATED = 0, 8
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_DATE = (1980 - 1980) << 9 | 1 << 5 | 1
_UNIX, _REGULAR_0644 = 3 << 8 | 20, 0o100644 << 16


class _Member(NamedTuple):
    name: bytes
    method: int
    crc: int
    stored_bytes: int
    size_bytes: int
    offset: int

    def local_header(self) -> bytes:
        return _LOCAL.pack(
            b"PK\3\4", 20, 0, self.method, 0, _DATE, self.crc, self.stored_bytes, self.size_bytes, len(self.name), 0
        ) + self.name  # fmt: skip

    def central_header(self) -> bytes:
        return _CENTRAL.pack(
            b"PK\1\2", _UNIX, 20, 0, self.method, 0, _DATE, self.crc, self.stored_bytes, self.size_bytes,
            len(self.name), 0, 0, 0, 0, _REGULAR_0644, self.offset,
        ) + self.name  # fmt: skip


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files, in the order given; the same files give the same bytes (with the same zlib)."""
    body, directory = bytearray(), bytearray()
    for path, content in files.items():
        deflated = _deflate(content)
        method, stored = (_DEFLATED, deflated) if len(deflated) < len(content) else (_STORED, content)
        member = _Member(path.encode(), method, zlib.crc32(content), len(stored), len(content), len(body))
        body += member.local_header() + stored
        directory += member.central_header()
    end = _end(len(files), len(directory), len(body))
    return bytes(body + directory + end)


def read_archive(data: bytes) -> dict[str, bytes]:
    """Path -> content, in the archive's order. Raises: PackageRefused."""
    members = _directory(data)
    check_paths([member.name.decode() for member in members])
    total = sum(member.size_bytes for member in members)
    if total > MAX_UNPACKED_BYTES:
        raise PackageRefused(f"its files would take {total} bytes, at most {MAX_UNPACKED_BYTES} are allowed")
    return {member.name.decode(): _content(data, member) for member in members}


def _directory(data: bytes) -> list[_Member]:
    if len(data) > MAX_PACKAGE_BYTES:
        raise PackageRefused(f"it has {len(data)} bytes, at most {MAX_PACKAGE_BYTES} are allowed")
    if len(data) < _END.size or data[:2] != b"PK":
        raise PackageRefused("it is no .magx file")
    _, _, _, _, count, directory_bytes, body_bytes, _ = _END.unpack(data[-_END.size :])
    if data[-_END.size :] != _end(count, directory_bytes, body_bytes):
        raise PackageRefused("the end of its archive is not as `mag extension:pack` writes it")
    if body_bytes + directory_bytes + _END.size != len(data) or not 0 < count <= MAX_FILES:
        raise PackageRefused(f"its archive does not add up, or holds more than {MAX_FILES} files")
    members, position, offset = [], body_bytes, 0
    for _ in range(count):
        member = _member(data, position, offset, body_bytes)
        members.append(member)
        position += _CENTRAL.size + len(member.name)
        offset += _LOCAL.size + len(member.name) + member.stored_bytes
    if position != len(data) - _END.size or offset != body_bytes:
        raise PackageRefused("its archive does not add up")
    return members


def _member(data: bytes, position: int, offset: int, body_bytes: int) -> _Member:
    """The entry of the directory at `position`, whose file must begin at `offset` and end inside the body."""
    if position + _CENTRAL.size > len(data) or offset > body_bytes:
        raise PackageRefused("its archive does not add up")
    _, _, _, _, method, _, _, crc, stored, size, name_bytes, *_ = _CENTRAL.unpack_from(data, position)
    start = position + _CENTRAL.size
    name = data[start : start + name_bytes]
    shown = name.decode("ascii", "backslashreplace")
    if (problem := path_problem(shown)) is not None:
        raise PackageRefused(problem)
    member = _Member(name, method, crc, stored, size, offset)
    central, local = member.central_header(), member.local_header()
    if data[position : position + len(central)] != central or data[offset : offset + len(local)] != local:
        raise PackageRefused(f"the entry of {shown} is not as `mag extension:pack` writes it (a plain file, no extras)")
    if size > MAX_FILE_BYTES:
        raise PackageRefused(f"{shown} would take {size} bytes, at most {MAX_FILE_BYTES} are allowed")
    if size > MAX_RATIO * stored + RATIO_FREE_BYTES:
        raise PackageRefused(f"{shown} would grow from {stored} to {size} bytes")
    if method not in (_STORED, _DEFLATED) or (method == _STORED and stored != size):
        raise PackageRefused(f"{shown} is compressed in a way that is not ours")
    return member


def _content(data: bytes, member: _Member) -> bytes:
    start = member.offset + _LOCAL.size + len(member.name)
    content = data[start : start + member.stored_bytes]
    shown = member.name.decode()
    if member.method == _DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflater.decompress(content, member.size_bytes + 1)
        except zlib.error as error:
            raise PackageRefused(f"{shown} cannot be inflated") from error
        if not inflater.eof or inflater.unused_data:
            raise PackageRefused(f"{shown} is not as long as its entry says")
    if len(content) != member.size_bytes:
        raise PackageRefused(f"{shown} is not as long as its entry says")
    if zlib.crc32(content) != member.crc:
        raise PackageRefused(f"{shown} is damaged")
    return content


def _deflate(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


def _end(count: int, directory_bytes: int, body_bytes: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, directory_bytes, body_bytes, 0)
