"""The settings of a node that runs, as its operators know them: shown, compared, changed, taken back.

Boundary: says what is to count; `turnover` lets it count. Invariants: one change at a time; what began ends, also when
who asked has gone; after a refusal the former settings count everywhere; no secret is in anything told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from functools import partial

from msgspec import Struct

from magmobo.contracts.capabilities import Actor
from magmobo.contracts.configuration import ConfigTree, ConfigVersions, ReloadOutcome, ReloadPlan
from magmobo.contracts.settings import AUTHORITY
from magmobo.kernel import patches, view
from magmobo.kernel.attempt import Attempt, Node, Target
from magmobo.kernel.config.authority import reserved, said_anew, set_anew
from magmobo.kernel.config.source import ConfigSource, Runtime, RuntimeSetting, SecretRead, Start
from magmobo.kernel.config.versions import Held, Versions
from magmobo.kernel.config.view import entries
from magmobo.kernel.errors import NotSetAtRuntime
from magmobo.kernel.planning import shown
from magmobo.kernel.services import KERNEL_ACTOR
from magmobo.kernel.turnover import Turnover
from magmobo.kernel.version_log import VersionLog


class Reloader:
    """Of one node.

    Args:
        start: what the present configuration was made of.
        versions: where versions are kept; without it in memory.
    """

    def __init__(self, node: Node, source: ConfigSource, start: Start, versions: Versions | None) -> None:
        self._node, self._source = node, source
        self._log = VersionLog(versions, lambda: node.current.kernel.config_versions, node.log)
        self._turnover = Turnover(node, source, start, self._log)

    def begin(self) -> None:
        """The node is ready for the first time: note the version it started with, let patches end."""
        self._turnover.begin()

    async def close(self, timeout_s: float) -> None:
        """The node goes down: end what is under way, which gets about `timeout_s`; nothing is begun any more."""
        await self._turnover.close(timeout_s)

    async def noted(self) -> None:
        """Return when the settings that the node started with have their number, unless it is not up yet."""
        await self._turnover.noted()

    # ------------------------------------------------------------ how it is

    @property
    def version(self) -> int:
        """The number of the settings that count."""
        return self._turnover.counted.version

    @property
    def reads(self) -> Sequence[SecretRead]:
        """The references that were followed for the settings that count."""
        return self._turnover.counted.built.reads

    @property
    def last_refusal(self) -> str:
        """Why the last reload did not take effect, empty when one has since."""
        return self._turnover.last_refusal

    @property
    def counts(self) -> Mapping[str, int]:
        """Reloads by result: `applied`, `unchanged`, `failed`."""
        return self._turnover.counts

    def tree(self, prefix: str = "") -> ConfigTree:
        """Every setting that counts, or those at and below `prefix`."""
        counted, config = self._turnover.counted, self._node.current.config
        sections = {name: type(config.section(name)) for name in config.sections}
        ends = {key: one.expires_at_s for key, one in counted.runtime.patches.items() if one.expires_at_s is not None}
        return ConfigTree(
            version=counted.version,
            environment=self._node.environment,
            entries=entries(
                config,
                sections,
                prefix=prefix,
                waiting=counted.waiting,
                expires={key: view.utc(at_s) for key, at_s in ends.items()},
            ),
            held=counted.held is not None and not counted.leaves_out,
            refused=self.last_refusal,
        )

    def history(self, limit: int) -> ConfigVersions:
        """The newest versions, newest first."""
        return self._log.history(limit)

    def notices(self) -> list[str]:
        """What an operator should know about the settings, a line each."""
        counted, lines = self._turnover.counted, [self._log.problem] if self._log.problem else []
        if self.last_refusal:
            lines.append(
                f"the last reload was refused: {self._turnover.last_refusal}; `mag config:diff` shows what it would do"
            )
        if counted.leaves_out and (remembered := sorted({*counted.runtime.overrides, *counted.runtime.patches})):
            lines.append(
                f"left out, as it was set at run time: {', '.join(remembered)}; it counts again after a start without "
                "--safe, unless `mag config:unset KEY` takes it back"
            )
        if counted.held is not None and not counted.leaves_out:
            lines.append(
                f"settings were taken back to those of version {counted.held.version} and stay so until the files "
                "change; `mag config:history` says why"
            )
        if counted.waiting:
            lines.append(f"changed, and waiting for a restart of the node: {', '.join(sorted(counted.waiting))}")
        return lines

    async def diff(self, version: int | None = None, *, accept_removed: bool = False) -> ReloadPlan:
        """What a reload would change now, or going back to `version`; nobody is asked, nothing changed.

        Raises: ConfigError, VaultUnavailable, NotReady, and as `Versions.snapshot`.
        """
        if version is None:
            target = await self._from_files(accept_removed)
        else:
            target = await self._from_version(version)
        return shown(await self._turnover.compare(target, KERNEL_ACTOR))

    # ------------------------------------------------------------ other settings

    async def reload(
        self, *, trigger: str, actor: Actor, dry_run: bool = False, accept_removed: bool = False
    ) -> ReloadOutcome:
        """Read the layers again and apply them.

        Raises: ConfigError, VaultUnavailable, AuditUnavailable, ReloadRefused, ReloadTakenBack, NotReady, Unavailable;
            the former settings count then.
        """
        return await self._turnover.change(
            partial(self._from_files, accept_removed), Attempt(trigger, actor, dry_run=dry_run)
        )

    async def set(
        self, key: str, value: str, ttl_s: float | None, *, actor: Actor, dry_run: bool = False
    ) -> ReloadOutcome:
        """Set one key above the files, for `ttl_s` seconds or until it is unset.

        Raises: CapabilityDenied, and as `reload`.
        """
        self._require(actor, {key}, "config:set")

        async def target() -> Target:
            now_s = self._node.clock.time_s()
            setting = RuntimeSetting(value, actor.name, now_s, None if ttl_s is None else now_s + ttl_s)
            counted = self._turnover.counted
            runtime = patches.with_setting(counted.runtime, key, setting)
            return Target(counted.base, runtime, counted.held, later=[*patches.later(runtime)])

        return await self._turnover.change(target, Attempt("patch", actor, dry_run=dry_run))

    async def unset(self, key: str, *, actor: Actor, dry_run: bool = False) -> ReloadOutcome:
        """Take back what `set` set. Raises: CapabilityDenied, NotSetAtRuntime, and as `reload`."""
        self._require(actor, {key}, "config:unset")

        async def target() -> Target:
            runtime = self._turnover.counted.runtime
            if key not in runtime.overrides and key not in runtime.patches:
                raise NotSetAtRuntime(key, self._node.current.config.origin(key))
            return self._with_runtime(patches.without(runtime, key))

        return await self._turnover.change(target, Attempt("patch", actor, dry_run=dry_run))

    async def rollback(
        self, version: int | None, *, actor: Actor, dry_run: bool = False, trigger: str = "rollback"
    ) -> ReloadOutcome:
        """Let an older version count again, by default the one before this, until the files change.

        Raises: CapabilityDenied when that says something else of a key for admins, NoFormerVersion, as
            `Versions.snapshot`, and as `reload`.
        """

        async def target() -> Target:
            found, counted = await self._from_version(version), self._turnover.counted
            anew = said_anew(counted.base, found.base) | set_anew(counted.runtime, found.runtime)
            self._require(actor, anew, "config:rollback")
            return found

        return await self._turnover.change(target, Attempt(trigger, actor, dry_run=dry_run))

    async def secrets_changed(self, names: Collection[str], *, actor: Actor) -> ReloadOutcome:
        """Follow every reference again, because these secrets of the vault changed. Raises: as `reload`."""

        async def target() -> Target:
            return self._with_runtime(self._turnover.counted.runtime)

        self._node.log.info("secrets changed", secrets=sorted(names))
        return await self._turnover.change(target, Attempt("secret", actor))

    async def admit(self, name: str, section: type[Struct]) -> None:
        """A component is to join: let what the files and whoever set something at run time say of it count, and nothing
        else of an edit that was not reloaded.

        Raises: ConfigError, VaultUnavailable, AuditUnavailable, Unavailable; then nothing has changed.
        """
        await self._turnover.admit(name, section)

    # ------------------------------------------------------------ who may

    def _require(self, actor: Actor, keys: Set[str], command: str) -> None:
        """Ask for more where one of these keys gives more than the command asks for. Raises: CapabilityDenied."""
        config = self._node.current.config
        sections = {name: type(config.section(name)) for name in config.sections}
        if found := reserved(keys, sections):
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            self._node.services.gate.require(actor, AUTHORITY, f"{command} of {found[0]}{more}")

    # ------------------------------------------------------------ what is to count

    async def _from_files(self, accept_removed: bool) -> Target:
        base = await self._source.read(accept_removed=accept_removed)
        counted = self._turnover.counted
        if counted.held is not None and counted.held.digest == base.digest:
            return self._with_runtime(counted.runtime)
        later = [] if counted.leaves_out else _with_nothing(counted.runtime)
        return Target(base, counted.runtime, is_read=True, later=later, leaves_out=counted.leaves_out)

    async def _from_version(self, version: int | None) -> Target:
        number = self._log.before(self._turnover.counted.version) if version is None else version
        snapshot = await self._log.snapshot(number)
        files = self._turnover.files_digest
        held = None if snapshot.base.digest == files else Held(number, files)
        runtime = patches.without_expired(snapshot.runtime, self._node.clock.time_s())
        return Target(snapshot.base, runtime, held, note=f"back to version {number}", later=_with_nothing(runtime))

    def _with_runtime(self, runtime: Runtime) -> Target:
        """Other settings of run time over the files as they count; after a safe start they go on to be left out."""
        counted = self._turnover.counted
        return Target(counted.base, runtime, counted.held, leaves_out=counted.leaves_out)


def _with_nothing(runtime: Runtime) -> Sequence[Runtime]:
    """What is left of it later, and nothing: the files must be valid by themselves, as at a start."""
    return [*patches.later(runtime), *([Runtime()] if runtime.overrides else [])]
