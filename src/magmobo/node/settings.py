"""What the user said, in layers: command line over environment over files over what the node made up over a demo.

Boundary: reads files and the environment it is given, writes nothing. The list of sections depends on the list of
components, and that on the section `kernel`, so the kernel's section is read first and the whole afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msgspec import Struct

import magmobo
from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import KernelConfig
from magmobo.kernel.config.layers import Layer, environment_layer, toml_layer
from magmobo.kernel.config.loader import Config, load_config, merge
from magmobo.node.errors import DemoUnknown

COMMAND_LINE = "command line"


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """What the command line says about a node; None leaves a setting to the other layers.

    `config_file` stands in for `mag.toml` in `working_dir`; its neighbours (`mag.<environment>.toml`, `mag.d`) are read
    from the same folder. `safe`: start no component at all; `only`: these and what they need, empty for all of them;
    `without`: not these, nor what needs them.
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
    working_dir: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

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
    """The user's layers, lowest first, and what everything else depends on. `safe` and `only` as in `NodeOptions`."""

    layers: Sequence[Layer]
    kernel: KernelConfig
    folder: DataFolder
    demo: str | None
    safe: bool = False
    only: tuple[str, ...] = ()

    def config(self, sections: Mapping[str, type[Struct]], generated: Layer | None = None) -> Config:
        """The whole configuration for a node with these sections.

        What a demo or the node itself sets for a section that this node has not got is left out.
        Raises: ConfigError with every problem, DemoUnknown.
        """
        below = [demo_layer(self.demo)] if self.demo else []
        below += [generated] if generated else []
        return load_config(sections, [*(_only(layer, sections) for layer in below), *self.layers])

    def without_sections(self, names: Collection[str]) -> Settings:
        """Without what the user set for components that are named but cannot be had."""
        kept = [_only(layer, [name for name in layer.values if name not in names]) for layer in self.layers]
        return replace(self, layers=kept)

    def dsn(self) -> Secret | None:
        """The database of the user's, when one is named."""
        merged = merge([layer for layer in self.layers if isinstance(layer.values.get("magds"), Mapping)])
        named = merged.values.get("magds", {}).get("dsn")
        return Secret(str(named)) if named else None


def read_settings(options: NodeOptions) -> Settings:
    """Read files, environment and command line. Raises: ConfigError with the problems of files or of [kernel]."""
    main_file = options.config_file or options.working_dir / "mag.toml"
    beside = main_file.parent
    base = [toml_layer(main_file, "mag.toml")] if options.config_file or main_file.exists() else []
    above = [environment_layer(options.environ), options.layer()]
    environment = _kernel_section([*base, *above]).environment
    named = beside / f"mag.{environment}.toml"
    extra = [named] if named.exists() else []
    extra += sorted((beside / "mag.d").glob("*.toml"))
    layers = [*base, *(toml_layer(path, path.name) for path in extra), *above]
    kernel = _kernel_section(layers)
    if kernel.environment != environment:
        raise ConfigError([f"kernel.environment: {named.name} and mag.d cannot change what chose {named.name}"])
    folder = DataFolder(options.working_dir / kernel.data_dir.expanduser())
    return Settings(layers, kernel, folder, options.demo, options.safe, options.only)


def demo_layer(name: str) -> Layer:
    """The settings that come with a demo. Raises: DemoUnknown."""
    presets = {preset.stem: preset for preset in Path(magmobo.__file__).parent.glob("components/demo/presets/*.toml")}
    if name not in presets:
        raise DemoUnknown(name)
    return Layer("demo", f"demo {name}", toml_layer(presets[name], "demo").values, kind="demo")


def _kernel_section(layers: Sequence[Layer]) -> KernelConfig:
    section: KernelConfig = load_config(
        {"kernel": KernelConfig}, [_only(layer, {"kernel"}) for layer in layers]
    ).section("kernel")
    return section


def _only(layer: Layer, sections: Any) -> Layer:
    values = {name: value for name, value in layer.values.items() if name in sections}
    return Layer(layer.name, layer.origin, values, layer.origins, layer.kind)
