"""What settings and secrets cost: a reload of 1,000 keys, a secret from the vault, a log line that must show no secret.

Reload: 20 components of 50 keys, from `mag.toml` and two files in `mag.d`, in a real kernel with the node's own source,
guard, versions and audit log. One key of each component is changed; the clock runs from the written files to the moment
every component has its new value, the disk's syncs included, the pause of the file watch not. The yardstick reads the
same files, parses them with tomllib and hands the tables to one `msgspec.convert`: no lines, no layers, no comparison,
nobody asked, nothing kept.

A vault read: the local file with 200 secrets, by the driver alone, and by a component, which is put on record first;
beside one AESGCM decryption of the same text. A log line of a failed request, made and handed to the writer, on a node
that knows 200 secrets beside one that knows none.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import timeit
import tomllib
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta, defstruct

from benchmarks.measure import Figure, Sample, compared, interleaved
from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.component import Component, Context
from magmobo.contracts.planes import Vault
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import LIVE
from magmobo.kernel.config.core import CORE_SECTIONS, VaultConfig
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.kernel import Kernel
from magmobo.kernel.known import KnownSecrets
from magmobo.kernel.observe.logging import configure_logging
from magmobo.kernel.vault.driver import VaultDriver
from magmobo.kernel.vault.opening import open_vault
from magmobo.node.beginning import begin
from magmobo.node.settings import NodeOptions, read_settings

LIMIT_MS = 50.0
COMPONENTS, KEYS = 20, 50
RELOADS, SECRETS, READS, LINES = 5, 200, 100, 2_000
PARSING, DECRYPTING, NONE_KNOWN = "tomllib.loads, msgspec.convert", "one AESGCM decrypt", "no secret known"
FILES = Actor(name="files", role=Role.ADMIN, via="kernel")
NAMES = [f"part{number:02}" for number in range(COMPONENTS)]
# By turns: what a key is, what it holds by default, and what the files say.
KINDS: list[tuple[Any, Any, str]] = [
    (Annotated[int, Meta(ge=0), LIVE], 0, "{}"),
    (Annotated[str, Meta(max_length=100), LIVE], "", '"value {}"'),
    (Annotated[float, Meta(ge=0), LIVE], 0.5, "{}.5"),
    (Annotated[tuple[str, ...], LIVE], (), '["a", "b{}"]'),
    (Annotated[Secret | None, LIVE], None, '"s3cret-{}-of-this-part"'),
]
FIELDS = [(f"key_{number}", *KINDS[number % len(KINDS)][:2]) for number in range(KEYS)]
SECTIONS = {name: defstruct(f"Section{name}", FIELDS, frozen=True, forbid_unknown_fields=True) for name in NAMES}
TREE = defstruct("Tree", list(SECTIONS.items()), frozen=True, forbid_unknown_fields=True)
EVENT: Mapping[str, Any] = {
    "component": "maggate",
    "correlation_id": "0af7651916cd43dd8448eb211c80319c",
    "code": "MAG-GATE-050",
    "status": 500,
    "path": "/rest/v1/flights?id=eq.4711",
    "error": "connection to server at 10.0.0.1 failed: timeout expired while waiting for it",
}


class Part(Component):
    """Takes its settings while it serves."""

    name = "part"
    alive: ClassVar[dict[str, Part]] = {}

    def __init__(self, context: Context) -> None:
        self.vault = context.vault

    def configure(self, config: Any) -> None:
        self.section = config
        self.alive[self.name] = self

    async def prepare_reload(self, new: Any, changed: Set[str]) -> None:
        self._new = new

    def commit_reload(self) -> None:
        self.section = self._new


def run(rounds: int) -> list[Figure]:
    """Milliseconds a reload, microseconds a secret and a line."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:  # a temporary file system may be memory
        reloads, secrets = _of_a_kernel(rounds, Path(place))
        lines = interleaved(
            rounds, {"known": partial(_log, Path(place), SECRETS), NONE_KNOWN: partial(_log, Path(place), 0)}
        )
    return [
        compared(
            reloads, "reload", PARSING, "ms", f"reload of {COMPONENTS * KEYS:,} keys", "ms", "lower",
            note=_met(reloads["reload"]),
        ),
        compared(secrets, "driver", DECRYPTING, "us", "vault read, the driver alone", "us", "lower"),
        compared(secrets, "component", DECRYPTING, "us", "vault read by a component, on record", "us", "lower"),
        compared(lines, "known", NONE_KNOWN, "us", f"a log line, {SECRETS} secrets known", "us", "lower"),
    ]  # fmt: skip


def _of_a_kernel(rounds: int, place: Path) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """Samples of reloads, and of reads from the vault."""
    files, known = Files(place), KnownSecrets()
    with _output(place / "node.log", known), asyncio.Runner() as runner:
        kernel = runner.run(_booted(files, known))
        try:
            reloads = interleaved(
                rounds, {"reload": lambda: runner.run(_reload(files, kernel)), PARSING: partial(_parse, files)}
            )
            secrets = interleaved(
                rounds,
                {
                    "driver": partial(_read_by_driver, files.driver),
                    "component": lambda: runner.run(_read_by_component(Part.alive[NAMES[0]].vault)),
                    DECRYPTING: _decrypt,
                },
            )
        finally:
            runner.run(kernel.shutdown())
    return reloads, secrets


def _met(samples: list[Sample]) -> str:
    slowest_ms = max(sample["slowest_ms"] for sample in samples)
    verdict = "met by every reload" if slowest_ms <= LIMIT_MS else "NOT met by every reload"
    return f"the limit is {LIMIT_MS:g} ms, {verdict}: slowest {slowest_ms:.1f} ms."


# ------------------------------------------------------------ reload


class Files:
    """The files of a node; `write` says something else in each of its sections."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._number = folder, 0
        self.data = DataFolder(folder / "data")
        (folder / "mag.d").mkdir()
        self.sections = {folder / "mag.toml": NAMES[:8]}
        self.sections |= {folder / "mag.d" / "10-more.toml": NAMES[8:14], folder / "mag.d" / "20-rest.toml": NAMES[14:]}
        self.write()
        self.data.claim()
        self.data.furnish()
        self.driver = open_vault(VaultConfig(), self.data.path)
        self.driver.write({f"{NAMES[0]}.secret_{number}": _secret(number) for number in range(SECRETS)}, pinned={})

    def write(self) -> int:
        """The first key of every section holds this number now."""
        self._number += 1
        for path, names in self.sections.items():
            path.write_text("".join(f"[{name}]\n{''.join(self._lines())}\n" for name in names))
        return self._number

    def _lines(self) -> Iterator[str]:
        for number, (key, *_) in enumerate(FIELDS):
            text = KINDS[number % len(KINDS)][2].format(self._number if number == 0 else number)
            yield f"{key} = {text}\n"


async def _booted(files: Files, known: KnownSecrets) -> Kernel:
    components = [
        type(name.title(), (Part,), {"name": name, "config_type": section, "__module__": __name__})
        for name, section in SECTIONS.items()
    ]
    options = NodeOptions(data_dir=files.data.path, environment="benchmark", working_dir=files.folder, environ={})
    beginning = await begin(
        options,
        read_settings(options),
        {**CORE_SECTIONS, **SECTIONS},
        generated=Layer("generated", "generated", {}, kind="generated"),
        keep=lambda: 20,
        digest_key=bytes(32),
    )
    kernel = Kernel(
        components=components,
        config=beginning.config,
        source=beginning.source,
        start=beginning.start,
        versions=beginning.versions,
        vault=beginning.vault,
        data_dir=files.data.path,
        environment="benchmark",
        instance_id=files.data.instance_id(),
        version="0",
        known=known,
    )
    await kernel.boot()
    await _reload(files, kernel)  # the first one loads what reloads
    return kernel


async def _reload(files: Files, kernel: Kernel) -> Sample:
    times_ms = []
    for _ in range(RELOADS):
        number = files.write()
        began_s = time.perf_counter()
        await kernel.reloader.reload(trigger="file", actor=FILES)
        times_ms.append((time.perf_counter() - began_s) * 1_000)
        assert all(part.section.key_0 == number for part in Part.alive.values())
    return {"ms": sorted(times_ms)[RELOADS // 2], "slowest_ms": max(times_ms)}


def _parse(files: Files) -> Sample:
    times_ms = []
    for _ in range(RELOADS):
        files.write()
        began_s = time.perf_counter()
        tables: dict[str, Any] = {}
        for path in files.sections:
            tables |= tomllib.loads(path.read_text())
        msgspec.convert(tables, TREE, dec_hook=lambda _, text: Secret(text))
        times_ms.append((time.perf_counter() - began_s) * 1_000)
    return {"ms": sorted(times_ms)[RELOADS // 2]}


# ------------------------------------------------------------ secrets


def _secret(number: int) -> str:
    return f"{number:04}-0mvYp8sZ4bVh2Qx7Lr1TnK9dJcW3aE6g-{number:04}"


def _read_by_driver(driver: VaultDriver) -> Sample:
    return _best_of_three(lambda: driver.read(f"{NAMES[0]}.secret_100"), READS)


async def _read_by_component(vault: Vault) -> Sample:
    name = f"{NAMES[0]}.secret_100"
    assert (await vault.read(name)).reveal() == _secret(100)
    began_s = time.perf_counter()
    for _ in range(READS):
        await vault.read(name, purpose="benchmark")
    return {"us": (time.perf_counter() - began_s) / READS * 1e6}


def _decrypt() -> Sample:
    key, nonce, bound_to = os.urandom(32), os.urandom(12), b"part00.secret_100"
    sealed = AESGCM(key).encrypt(nonce, _secret(100).encode(), bound_to)
    return _best_of_three(lambda: AESGCM(key).decrypt(nonce, sealed, bound_to).decode(), READS)


def _best_of_three(action: Any, times: int) -> Sample:
    return {"us": min(timeit.repeat(action, number=times, repeat=3)) / times * 1e6}


# ------------------------------------------------------------ log


def _log(place: Path, secrets: int) -> Sample:
    known = KnownSecrets()
    for number in range(secrets):
        known.add(_secret(number))
    with _output(place / "mag.log", known):
        log = structlog.get_logger().bind(**EVENT)
        log.error("request failed")  # the first one takes in what is known
        began_s = time.perf_counter()
        for _ in range(LINES):
            log.error("request failed")
        return {"us": (time.perf_counter() - began_s) / LINES * 1e6}


@contextmanager
def _output(file: Path, known: KnownSecrets) -> Iterator[None]:
    output = configure_logging(level="info", format="json", instance_id="benchmark", file=file, mask=known.value)
    try:
        yield
    finally:
        output.close()
