"""What the user said, in layers: command line over credentials over environment over files over what the node made up
over a demo.

Boundary: reads files and the environment it is given, writes nothing. The list of sections depends on the list of
components, and that on the section `kernel`, so the kernel's section is read first and the whole afterwards. What a
secret refers to is followed by `node.configuration`, not here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

import magmobo
from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.errors import ConfigError
from magmobo.kernel.config.core import KernelConfig
from magmobo.kernel.config.layers import (
    FALLBACKS,
    FILE_SUFFIX,
    Layer,
    credentials_layer,
    environment_layer,
    file_content,
    parsed_layer,
    toml_layer,
)
from magmobo.kernel.config.loader import load_config, merge
from magmobo.kernel.config.source import Base
from magmobo.kernel.errors import ConfigFileError
from magmobo.node.errors import DemoUnknown

COMMAND_LINE = "command line"
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """What the command line says about a node; None leaves a setting to the other layers.

    `config_file` stands in for `mag.toml` in `working_dir`; its neighbours (`mag.<environment>.toml`, `mag.d`,
    `secrets/<environment>.toml`) are read from the same folder. `safe`: start no component at all, and leave out what
    was set at run time; `only`: these and what they need, empty for all of them; `without`: not these, nor what needs
    them; `accept_removed`: a file that the last start read may be gone, or shorter than it was.
    """

    data_dir: Path | None = None
    dsn: str | None = None
    demo: str | None = None
    speed: float | None = None
    host: str | None = None
    port: int | None = None
    config_file: Path | None = None
    environment: str | None = None
    safe: bool = False
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    accept_removed: bool = False
    working_dir: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @property
    def credentials_dir(self) -> Path | None:
        """Where systemd put credentials for this process."""
        named = self.environ.get(CREDENTIALS_DIRECTORY, "")
        return Path(named) if named else None

    @property
    def main_file(self) -> Path:
        """The file beside which all others lie."""
        return self.config_file or self.working_dir / "mag.toml"

    def layer(self) -> Layer:
        """These options as the topmost layer."""
        said: dict[str, dict[str, Any]] = {
            "kernel": {
                "data_dir": self.data_dir,
                "environment": self.environment,
                "without": self.without or None,
            },
            "listener": {"host": self.host, "port": self.port},
            "magds": {"dsn": self.dsn},
            "demo": {"name": self.demo, "speed": self.speed},
        }
        values = {
            section: set_keys
            for section, keys in said.items()
            if (set_keys := {key: value for key, value in keys.items() if value is not None})
        }
        return Layer(COMMAND_LINE, COMMAND_LINE, values, kind=COMMAND_LINE)


@dataclass(frozen=True)
class Settings:
    """The user's layers, lowest first, and what everything else depends on. `safe` and `only` as in `NodeOptions`;
    `texts` is what was read, by file.
    """

    layers: Sequence[Layer]
    kernel: KernelConfig
    folder: DataFolder
    demo: str | None
    safe: bool = False
    only: tuple[str, ...] = ()
    texts: Mapping[Path, bytes] = field(default_factory=dict, repr=False)

    def base(
        self, sections: Mapping[str, type[Struct]], generated: Layer | None = None, *, digest_key: bytes = b""
    ) -> Base:
        """All layers of a node with these sections as one.

        digest_key: without it whoever has a digest could try what the secrets are.
        What a demo or the node itself sets for a section that this node has not got is left out.
        Raises: DemoUnknown.
        """
        below = [demo_layer(self.demo)] if self.demo else []
        below += [generated] if generated else []
        merged = merge([*(_only(layer, sections) for layer in below), *self.layers])
        return Base(merged.values, merged.origins, merged.layers, _digest(merged.values, digest_key))

    def without_sections(self, names: Collection[str]) -> Settings:
        """Without what the user set for components that are named but cannot be had."""
        kept = [_only(layer, [name for name in layer.values if name not in names]) for layer in self.layers]
        return replace(self, layers=kept)


def _digest(values: Mapping[str, Any], key: bytes) -> str:
    import json
    from hashlib import blake2b

    return blake2b(json.dumps(values, sort_keys=True, default=str).encode(), key=key).hexdigest()


def read_settings(options: NodeOptions, *, environment: str | None = None) -> Settings:
    """Read files, environment, credentials and command line.

    environment: whose files are read, whatever the layers say; of a node that runs.
    Raises: ConfigError with the problems of files or of [kernel].
    """
    reading = _Reading()
    main_file = options.main_file
    base = [reading.toml(main_file, "mag.toml")] if options.config_file or _is_there(main_file) else []
    above = [environment_layer(options.environ)]
    above += [credentials_layer(options.credentials_dir)] if options.credentials_dir else []
    above.append(options.layer())
    chosen = environment or _kernel_section([*base, *above]).environment
    layers = [*base, *reading.neighbours(main_file, chosen), *above]
    kernel = _kernel_section(layers)
    if environment is None and kernel.environment != chosen:
        named = environment_file(main_file, chosen).name
        raise ConfigError([f"kernel.environment: {named} and mag.d cannot change what chose {named}"])
    folder = DataFolder(options.working_dir / kernel.data_dir.expanduser())
    return Settings(layers, kernel, folder, options.demo, options.safe, options.only, reading.texts)


def watched_files(options: NodeOptions, environment: str) -> list[Path]:
    """The files that `read_settings` reads now, and those that it would read if they were there. Raises: OSError."""
    main_file = options.main_file
    named = [main_file, environment_file(main_file, environment), secrets_file(main_file, environment)]
    fallbacks = {f"{name}{FILE_SUFFIX}" for name in FALLBACKS}
    values = [
        Path(text)
        for name, text in options.environ.items()
        if name.endswith(FILE_SUFFIX) and (name.startswith("MAG_") or (name in fallbacks and text))
    ]
    credentials = options.credentials_dir
    return [*named, *_more_files(main_file), *values, *(sorted(credentials.iterdir()) if credentials else ())]


def environment_file(main_file: Path, environment: str) -> Path:
    """The file for one environment alone."""
    return main_file.with_name(f"mag.{environment}.toml")


def secrets_file(main_file: Path, environment: str) -> Path:
    """The file for the secrets of one environment."""
    return main_file.parent / "secrets" / f"{environment}.toml"


def _more_files(main_file: Path) -> list[Path]:
    """Raises: OSError, when there is a folder of further files that cannot be listed."""
    folder = main_file.parent / "mag.d"
    return sorted(path for path in folder.iterdir() if path.suffix == ".toml") if folder.is_dir() else []


def demo_layer(name: str) -> Layer:
    """The settings that come with a demo. Raises: DemoUnknown."""
    presets = {preset.stem: preset for preset in Path(magmobo.__file__).parent.glob("components/demo/presets/*.toml")}
    if name not in presets:
        raise DemoUnknown(name)
    return Layer("demo", f"demo {name}", toml_layer(presets[name], "demo").values, kind="demo")


class _Reading:
    """Files as layers, and their texts as they were parsed."""

    def __init__(self) -> None:
        self.texts: dict[Path, bytes] = {}

    def neighbours(self, main_file: Path, environment: str) -> list[Layer]:
        named, secrets = environment_file(main_file, environment), secrets_file(main_file, environment)
        found = [self.toml(named, named.name)] if _is_there(named) else []
        found += [self.toml(path, f"mag.d/{path.name}") for path in self._more(main_file)]
        if _is_there(secrets):
            self.texts[secrets] = content = file_content(secrets, is_secret=True)
            found.append(parsed_layer(content, secrets, f"secrets/{secrets.name}", "secrets"))
        return found

    def _more(self, main_file: Path) -> list[Path]:
        try:
            return _more_files(main_file)
        except OSError as error:
            raise ConfigFileError([f"mag.d beside {main_file.name}: cannot be read ({error.strerror})"]) from error

    def toml(self, path: Path, name: str) -> Layer:
        self.texts[path] = content = file_content(path)
        return parsed_layer(content, path, name)


def _is_there(path: Path) -> bool:
    """Also when it is a link to nothing, or something else than a file: reading it says what is wrong."""
    return os.path.lexists(path)


def _kernel_section(layers: Sequence[Layer]) -> KernelConfig:
    section: KernelConfig = load_config(
        {"kernel": KernelConfig}, [_only(layer, {"kernel"}) for layer in layers]
    ).section("kernel")
    return section


def _only(layer: Layer, sections: Any) -> Layer:
    values = {name: value for name, value in layer.values.items() if name in sections}
    return structs.replace(layer, values=values)
