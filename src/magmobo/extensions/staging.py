"""Packages on their way to the node: parts in order, kept in memory until they are whole, forgotten after a while.

Boundary: nothing is opened here, only the digest is compared. Invariant: at most `MAX_PACKAGES` packages and, because a
package announces its size first, at most that many times the largest package of memory.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from hashlib import sha256 as sha256_of

from magmobo.contracts.extensions import STAGE_CHUNK_BYTES, Staged, StagePackage
from magmobo.extensions.errors import NotStaged, StageRefused

MAX_PACKAGES = 4
KEPT_S = 600.0


class _Parcel:
    __slots__ = ("data", "size_bytes", "touched_s")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes, self.data, self.touched_s = size_bytes, bytearray(), 0.0

    @property
    def is_whole(self) -> bool:
        return len(self.data) == self.size_bytes


class Staging:
    """The packages that have been brought, wholly or in part."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._parcels: dict[str, _Parcel] = {}

    def take(self, part: StagePackage) -> Staged:
        """One part. Raises: StageRefused, and then what had arrived of a whole package is forgotten if it is wrong."""
        self._forget_old()
        parcel = self._parcels.get(part.sha256)
        if parcel is None or parcel.size_bytes != part.size_bytes:
            parcel = self._begin(part)
        parcel.touched_s = self._monotonic_s()
        chunk = _decoded(part.data)
        if part.offset < len(parcel.data):
            return Staged(len(parcel.data), parcel.is_whole)  # said twice, or after another who brings the same
        if part.offset > len(parcel.data) or len(parcel.data) + len(chunk) > parcel.size_bytes:
            raise StageRefused(f"a part at {part.offset} of {parcel.size_bytes} bytes, {len(parcel.data)} are here")
        parcel.data += chunk
        if parcel.is_whole and sha256_of(parcel.data).hexdigest() != part.sha256:
            del self._parcels[part.sha256]
            raise StageRefused("its digest is not the one that was announced")
        return Staged(len(parcel.data), parcel.is_whole)

    def package(self, sha256: str) -> bytes:
        """The whole package; it stays for another try. Raises: NotStaged."""
        self._forget_old()
        parcel = self._parcels.get(sha256)
        if parcel is None or not parcel.is_whole:
            raise NotStaged(sha256)
        return bytes(parcel.data)

    def drop(self, sha256: str) -> None:
        """It is installed, or will never be."""
        self._parcels.pop(sha256, None)

    def _begin(self, part: StagePackage) -> _Parcel:
        if part.offset:
            raise StageRefused("nothing of it is here, so it begins at 0")
        self._parcels.pop(part.sha256, None)
        if len(self._parcels) >= MAX_PACKAGES:
            self._make_room()
        parcel = self._parcels[part.sha256] = _Parcel(part.size_bytes)
        return parcel

    def _make_room(self) -> None:
        """Forget the oldest whole package: it was looked at, or refused. Raises: StageRefused: all are on their way."""
        whole = [(parcel.touched_s, key) for key, parcel in self._parcels.items() if parcel.is_whole]
        if not whole:
            raise StageRefused(f"{MAX_PACKAGES} others are being brought at this moment")
        del self._parcels[min(whole)[1]]

    def _forget_old(self) -> None:
        oldest_s = self._monotonic_s() - KEPT_S
        for sha256 in [key for key, parcel in self._parcels.items() if parcel.touched_s < oldest_s]:
            del self._parcels[sha256]


def _decoded(text: str) -> bytes:
    try:
        chunk = b64decode(text, validate=True)
    except (Base64Error, ValueError) as error:
        raise StageRefused("a part is not base64") from error
    if len(chunk) > STAGE_CHUNK_BYTES:
        raise StageRefused(f"a part of {len(chunk)} bytes, the limit is {STAGE_CHUNK_BYTES}")
    return chunk
