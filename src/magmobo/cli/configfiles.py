"""Settings as the files, the environment and the options say, for commands that work without a node.

Invariant: what is found here is what `mag up` would find from the same place; nothing is changed and nothing is made.
The vault is not opened: each read of it is audited, and checking settings is none. What stands for one of its secrets
meanwhile is as long as a key, and differs from reference to reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from magmobo.admin.data_folder import DataFolder
from magmobo.contracts.configuration import ConfigChange
from magmobo.contracts.errors import MagError
from magmobo.kernel.config.core import VaultConfig
from magmobo.kernel.config.differences import changed_settings
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.loader import Config, load_config
from magmobo.kernel.config.references import References
from magmobo.kernel.config.sealing import Sealer
from magmobo.kernel.config.secret_text import Reference
from magmobo.kernel.config.source import SecretRead
from magmobo.kernel.config.version_folder import VersionFolder
from magmobo.kernel.config.view import change
from magmobo.node.components import find_components, sections_of
from magmobo.node.oversights import oversights
from magmobo.node.secrets import GeneratedSecrets
from magmobo.node.settings import COMMAND_LINE, NodeOptions, Settings, read_settings

_OF_FILES = ("file", "secrets")
_VAULT = "vault"


class Here(NamedTuple):
    """What was read: the user's layers, and the sections of the components that a node of theirs would have."""

    options: NodeOptions
    settings: Settings
    sections: Mapping[str, type[Struct]]
    notices: Sequence[str]

    @property
    def environment(self) -> str:
        """The name that chose the files."""
        return self.settings.kernel.environment

    @property
    def folder(self) -> DataFolder:
        """The data folder; it may not be there."""
        return self.settings.folder

    def notes(self) -> list[str]:
        """What the user should know besides: what was probably overlooked, and what is set above the files."""
        return [*self.notices, *oversights(self.options, self.settings, self.sections), *self._set_at_run_time()]

    def _set_at_run_time(self) -> Iterator[str]:
        folder = self.folder.path / "config"
        versions = VersionFolder(folder, sealer=Sealer(self.folder.secrets_file.with_name("config.key")), keep=int)
        try:
            runtime = versions.read_runtime().runtime
        except (MagError, OSError) as error:
            yield f"what was set at run time was not looked at: {error}"
            return
        if keys := sorted(runtime.overrides.keys() | runtime.patches.keys()):
            yield f"`mag config:set` set above these files, and not looked at: {', '.join(keys)}"

    def sources(self) -> Sequence[str]:
        """Who says anything besides these options, lowest first."""
        return [layer.origin for layer in self.settings.layers if layer.values and layer.kind != COMMAND_LINE]

    def checked(self) -> tuple[Config, Sequence[SecretRead]]:
        """The whole configuration, and the secrets it would take from the vault. Raises: ConfigError."""
        resolver = _AllButVault(_references(self.options))
        return load_config(self.sections, self._layers(), resolve=resolver), resolver.unasked

    def compared(self) -> Config:
        """The configuration for a comparison with another environment: what files say wins over what only this machine
        says, and no reference is followed. Raises: ConfigError.
        """
        layers = self._layers()
        ordered = [layer for layer in layers if layer.kind not in _OF_FILES]
        ordered += [layer for layer in layers if layer.kind in _OF_FILES]
        return load_config(self.sections, ordered, resolve=lambda reference, _: _stand_in(reference))

    def _layers(self) -> Sequence[Layer]:
        generated = GeneratedSecrets(self.folder).layer(demo=False) if self.folder.secrets_file.exists() else None
        return [*([_only(generated, self.sections)] if generated else []), *self.settings.layers]


class _AllButVault:
    """Follows references to files, variables and credentials; of those to the vault it only takes note."""

    def __init__(self, others: References) -> None:
        self._others = others
        self.unasked: list[SecretRead] = []

    def __call__(self, reference: Reference, key: str) -> str:
        """Raises: ReferenceFailed."""
        if reference.kind != _VAULT or key.startswith(f"{_VAULT}."):
            return self._others(reference, key)
        self.unasked.append(SecretRead(key, str(reference), reference.version))
        return _stand_in(reference)


def read_here(options: NodeOptions) -> Here:
    """Read the layers and find the components. Raises: ConfigError, ComponentNotLoadable, BadDeclaration."""
    settings = read_settings(options)
    named = {name for layer in settings.layers for name in layer.values}
    found = find_components(settings.kernel.components, demo=False, sections=named)
    return Here(options, settings.without_sections(found.missing), sections_of(found.classes), found.notices)


def differences(old: Here, new: Here) -> Sequence[ConfigChange]:
    """What the files of `new` say otherwise than those of `old`, in the order of the keys. Raises: ConfigError."""
    before, after = old.compared(), new.compared()
    keys = changed_settings(before, after) - {"kernel.environment"}  # which is what was asked for
    return [change(key, before, after) for key in sorted(keys)]


def vault_section(options: NodeOptions, settings: Settings) -> VaultConfig:
    """Section [vault] alone, whatever is wrong elsewhere. Raises: ConfigError."""
    layers = [_only(layer, (_VAULT,)) for layer in settings.layers]
    section: VaultConfig = load_config({_VAULT: VaultConfig}, layers, resolve=_references(options)).section(_VAULT)
    return section


def _references(options: NodeOptions) -> References:
    return References(environ=options.environ, credentials_dir=options.credentials_dir, base_dir=options.working_dir)


def _only(layer: Layer, sections: Iterable[str]) -> Layer:
    values: dict[str, Any] = {name: layer.values[name] for name in sections if name in layer.values}
    return replace(layer, values=values)


def _stand_in(reference: Reference) -> str:
    return sha256(str(reference).encode()).hexdigest()
