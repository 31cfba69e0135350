"""Cases 25 to 30 on a node: packages that lie, are not whose they seem, or want more than was approved."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.hostile.extensions.node_gate import Gate, Scene

from magmobo.extensions.package.archive import read_archive, write_archive
from magmobo.extensions.package.build import pack
from magmobo.extensions.package.format import FileEntry, Index, digest
from magmobo.extensions.package.keys import KeyPair, generate, public_text, signature_of

QUIET = "quiet"
FILE = "extension.py"


def resigned(data: bytes, more: Mapping[str, bytes], key: KeyPair, **changed: Any) -> dict[str, bytes]:
    """What somebody with a trusted key can sign: these files, whatever their names, and an index that says so."""
    files = {name: text for name, text in read_archive(data).items() if not name.startswith("MAGX")} | dict(more)
    entries = {name: FileEntry(digest(text), len(text)) for name, text in files.items()}
    said = {"format": "magx/1", "id": "bad", "version": "2.0.0", "key_id": key.key_id, "files": entries} | changed
    index = Index(**said).encoded()
    return {"MAGX.json": index, "MAGX.sig": signature_of(index, key), **files}


def by_another_program(parts: Mapping[str, bytes], link: str = "") -> bytes:
    """The same by another program; the entry `link` is a symbolic link."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o120777 if name == link else 0o100644) << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


async def refused(gate: Gate, scene: Scene, what: str, data: bytes, *codes: str, verb: str = "install") -> None:
    """The node refuses this package with one of these codes, says so in its audit log, and keeps nothing of it."""
    since = gate.head
    error = await gate.refused(f"extension:{verb}", sha256=await gate.stage(data))
    if error is None:
        scene.note("leaked", what, "it was taken")
    elif error.code not in codes:
        scene.note("leaked", what, f"refused for another reason: {error.code} {error}")
    else:
        scene.note("stopped", what, f"{error.code} {error}")
        await gate.must_record(scene, since, f"extension.{verb}", error.code)
    known = [one["id"] for one in (await gate.command("extension:list"))["extensions"]]
    if "bad" in known:
        scene.note("leaked", what, "it is among the extensions")


async def names(gate: Gate, scene: Scene) -> None:
    good = await gate.package(QUIET, id="bad")
    for path in ("../evil.py", "/etc/cron.d/evil", "..\\evil.py", "a/../../evil.py", "Extension.py"):
        data = write_archive(resigned(good, {path: b"evil = 1\n"}, gate.key))
        await refused(gate, scene, path, data, "MAG-EXT-161")
    parts = resigned(good, {"link.py": b"/etc/passwd"}, gate.key)
    await refused(gate, scene, "a symbolic link", by_another_program(parts, "link.py"), "MAG-EXT-161")
    parts = resigned(good, {"extensiom.py": b"evil = 1\n"}, gate.key)
    twice = write_archive(parts).replace(b"extensiom.py", FILE.encode())
    await refused(gate, scene, "a name that is there twice", twice, "MAG-EXT-161", "MAG-EXT-163")


async def bombs(gate: Gate, scene: Scene) -> None:
    good = await gate.package(QUIET, id="bad")
    zeros = {"zeros.bin": bytes(40 * 1_048_576)}
    bomb = await asyncio.to_thread(lambda: by_another_program(resigned(good, zeros, gate.key)))
    await refused(gate, scene, "40 MB of zeros", bomb, "MAG-EXT-161")
    parts = resigned(good, {"small.bin": bytes(1_048_576)}, gate.key)
    lying = write_archive(parts).replace((1_048_576).to_bytes(4, "little"), (64).to_bytes(4, "little"))
    await refused(gate, scene, "sizes that lie", lying, "MAG-EXT-161")


async def signatures(gate: Gate, scene: Scene) -> None:
    good = await gate.package(QUIET, id="bad")
    parts = read_archive(good)
    tampered = {**parts, FILE: parts[FILE] + b"\nimport os\n"}
    await refused(gate, scene, "a file that was changed", write_archive(tampered), "MAG-EXT-161", "MAG-EXT-163")
    extra = write_archive({**parts, "more.py": b"evil = 1\n"})
    await refused(gate, scene, "a file that was added", extra, "MAG-EXT-161", "MAG-EXT-163")
    await refused(gate, scene, "no signature", pack(gate.author(QUIET, id="bad")), "MAG-EXT-162")
    unknown = await gate.package(QUIET, id="bad", key=generate())
    await refused(gate, scene, "an unknown key", unknown, "MAG-EXT-164")
    wrong = resigned(good, {}, generate(), key_id=gate.key.key_id)
    await refused(gate, scene, "another key under a trusted name", write_archive(wrong), "MAG-EXT-163")


async def takeovers(gate: Gate, scene: Scene) -> None:
    await gate.admit("calls", version="1.5.0")
    older = await gate.package("calls", version="1.4.9")
    await refused(gate, scene, "an older version", older, "MAG-EXT-165", verb="upgrade")
    same = await gate.package("calls", version="1.5.0", description="other content")
    await refused(gate, scene, "the same version with other content", same, "MAG-EXT-165", verb="upgrade")
    newer = await gate.package("calls", version="9.0.0")
    swapped = write_archive(resigned(newer, {}, gate.key, id="quiet", version="9.0.0"))
    await refused(gate, scene, "another extension's index", swapped, "MAG-EXT-161", "MAG-EXT-165", verb="upgrade")
    other = generate()
    trusted = len((await gate.command("extension:trust"))["keys"])
    await gate.command("extension:trust", public=public_text(other.public), label="somebody else")
    stolen = await gate.package("calls", key=other, version="2.0.0")
    await refused(gate, scene, "another signer, trusted too", stolen, "MAG-EXT-165", verb="upgrade")
    await gate.command("extension:trust", remove=other.key_id)
    assert len((await gate.command("extension:trust"))["keys"]) == trusted
    if (await gate.command("extension:show", id="calls"))["info"]["version"] != "1.5.0":
        scene.note("leaked", "takeover", "another version runs")
    await gate.command("extension:disable", id="calls")
    await gate.command("extension:uninstall", id="calls", delete_data=True)


async def more_rights(gate: Gate, scene: Scene) -> None:
    since = gate.head
    asks = [{"name": "network.outbound", "reason": "More.", "hosts": ["example.com"]}]
    digest_of = await gate.stage(await gate.package(QUIET, version="2.0.0", capabilities=asks))
    shown = await gate.command("extension:upgrade", sha256=digest_of)
    info = shown["info"]
    if info["version"] == "1.0.0" and info["pending_version"] == "2.0.0" and info["state"] == "enabled":
        scene.note("stopped", "an upgrade that wants more", "the old version runs until it is approved")
    else:
        scene.note("leaked", "an upgrade that wants more", json.dumps(info))
    if await gate.run(QUIET, "hello") != "hello":
        scene.note("leaked", "an upgrade that wants more", "the old version does not answer")
    await gate.must_record(scene, since, "extension.upgrade", digest_of)


async def manifests(gate: Gate, scene: Scene) -> None:
    good = await gate.package(QUIET, id="bad")

    def saying(**changed: Any) -> bytes:
        """An author's tools would refuse it, so it is signed as it is."""
        said = gate.corpus.find(QUIET).manifest() | {"id": "bad"} | changed
        return write_archive(resigned(good, {"manifest.json": json.dumps(said).encode()}, gate.key, version="1.0.0"))

    def where(pattern: str) -> dict[str, Any]:
        return {"events": [{"name": "one", "topic": "config.changed", "where": {"data.x": {"$regex": pattern}}}]}

    schema = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}}
    await refused(gate, scene, "a schema of another server", saying(settings=schema), "MAG-EXT-160")
    slow = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    await refused(gate, scene, "a pattern in a schema", saying(settings=slow), "MAG-EXT-160")
    await refused(gate, scene, "a pattern that looks back", saying(**where(r"(a)\1+$")), "MAG-EXT-160")
    explodes = saying(**where("((a{1,900}){1,900}){1,900}"))
    await refused(gate, scene, "a pattern that explodes when it is compiled", explodes, "MAG-EXT-160")
    unknown = saying(hooks=[{"point": "kernel.everything"}])
    await refused(gate, scene, "a hook that does not exist", unknown, "MAG-EXT-160")


CASES: Mapping[int, Callable[[Gate, Scene], Awaitable[None]]] = {
    25: names, 26: bombs, 27: signatures, 28: takeovers, 29: more_rights, 30: manifests,
}  # fmt: skip
