"""One node from its first file to its last: claim the folder, boot the kernel, open the door, wait, drain, let go.

Invariant: whatever happens, the order of letting go is kernel, control socket, lock, open connections; the socket is
removed while the lock is held, so that a successor's socket is never taken away, and who asked for the stop hears of it
when the folder is free.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog

from magmobo import __version__
from magmobo.admin.data_folder import DataFolder, NodeLock
from magmobo.admin.errors import data_folder_error
from magmobo.contracts.commands import Call
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import Envelope, SystemBoot, SystemReady
from magmobo.contracts.operations import NodeStop, Stopping
from magmobo.contracts.planes import Operators
from magmobo.kernel.choice import Choice, Newcomer
from magmobo.kernel.config.core import AdminConfig, LoggingConfig
from magmobo.kernel.config.loader import Config
from magmobo.kernel.config.source import Runtime
from magmobo.kernel.kernel import Kernel
from magmobo.kernel.known import KnownSecrets
from magmobo.kernel.observe.logging import LogOutput, configure_logging
from magmobo.kernel.selection import select
from magmobo.node.beginning import Beginning, begin, check
from magmobo.node.components import Found, find_components, load, locate, sections_of
from magmobo.node.doors import Doors
from magmobo.node.errors import NodeEnded, StartInterrupted
from magmobo.node.following import Following
from magmobo.node.names import names_key
from magmobo.node.notify import Notifier
from magmobo.node.operators import NodeOperators
from magmobo.node.oversights import oversights
from magmobo.node.report import Ready
from magmobo.node.secrets import GeneratedSecrets
from magmobo.node.settings import NodeOptions, Settings, read_settings
from magmobo.node.signals import stopping_on_signals

OWNER = "node"
Announce = Callable[[Ready], None]
FolderReady = Callable[[DataFolder], None]


class Node:
    """A node that runs once. `announce` is called when it is ready, `folder_ready` when the data folder is ours;
    `notifier` speaks to the service manager.
    """

    def __init__(
        self,
        options: NodeOptions,
        *,
        announce: Announce,
        folder_ready: FolderReady | None = None,
        notifier: Notifier | None = None,
        known: KnownSecrets | None = None,
    ) -> None:
        self._options, self._announce, self._folder_ready = options, announce, folder_ready
        self._known = known or KnownSecrets()
        self._notifier = notifier or Notifier()
        self._started_s, self._began_at_s = time.monotonic(), time.time()
        self._stop = asyncio.Event()
        self._ended_because = ""
        self._following: Following

    async def run(self) -> None:
        """Boot, announce, serve until a signal or `mag down`, drain.

        Raises: MagError of whatever kept the node from starting, NodeEnded; then nothing of it is left running.
        """
        self._known.learn_environment(self._options.environ)
        settings = read_settings(self._options)
        found = _find(settings)
        settings = settings.without_sections(found.missing)
        sections = sections_of(found.classes)
        check(self._options, settings, sections)
        select(
            found.classes,
            (Operators,),
            only=settings.only,
            without=settings.kernel.without,
            optional=found.optional,
            missing=found.missing,
            safe=settings.safe,
        )
        folder, lock = settings.folder, NodeLock(settings.folder)
        folder.claim()
        lock.acquire()
        try:
            folder.furnish()
            if self._folder_ready is not None:
                self._folder_ready(folder)
            generated = GeneratedSecrets(folder)
            self._known.names_key = partial(names_key, folder.secrets_file.parent)
            beginning = await begin(
                self._options,
                settings,
                sections,
                generated=generated.layer(demo=settings.demo is not None),
                keep=self._versions_kept,
                digest_key=names_key(folder.secrets_file.parent),
            )
            self._known.learn(beginning.config)
            self._following = Following(
                self._options, beginning.config, beginning.source, self._notifier, read_at_s=self._began_at_s
            )
            with (
                _telling_what_was_set(beginning.start.runtime if not settings.safe else Runtime()),
                _logging(beginning.config.section("logging"), folder, self._known) as output,
                stopping_on_signals(self._stop.set, self._following.signalled),
            ):
                self._following.log_to(output)
                kernel, operators = self._assemble(settings, found, beginning)
                self._notifier.status(f"booting, data folder {folder.path}")
                async with self._notifier.pinging():
                    await self._serve(kernel, operators, folder, generated, lock)
        finally:
            lock.release()
        if self._ended_because:
            raise NodeEnded(self._ended_because)

    async def _serve(
        self, kernel: Kernel, operators: NodeOperators, folder: DataFolder, generated: GeneratedSecrets, lock: NodeLock
    ) -> None:
        doors = Doors(folder, kernel.config.section("admin"), operators)
        await doors.open()
        try:
            await self._boot(kernel)
            try:
                generated.keep()
                _settle_memory()
                self._announce(self._ready(operators, folder, generated.new_admin_token))
                self._notifier.status(f"serving, data folder {folder.path}")
                self._notifier.ready()
                self._watch_resets(kernel)
                await self._serve_until_stopped(kernel)
            finally:
                self._notifier.stopping()
                await kernel.shutdown()
        finally:
            doors.shut()
            lock.release()
            await doors.close()

    def _versions_kept(self) -> int:
        return self._following.versions_kept()  # of the settings that count then, which are not known yet

    async def _serve_until_stopped(self, kernel: Kernel) -> None:
        following = asyncio.create_task(self._following.run(kernel), name="node:following")
        following.add_done_callback(_tell_if_it_failed)
        try:
            await self._stop.wait()
        finally:
            following.cancel()
            await asyncio.wait({following})

    def _watch_resets(self, kernel: Kernel) -> None:
        """A reset makes the objects of a boot anew, and the service manager hears of it."""

        def came_back(_: Envelope[SystemReady]) -> None:
            _settle_memory()
            self._notifier.ready()

        kernel.bus.subscribe(OWNER, SystemBoot, lambda _: self._notifier.reloading())
        kernel.bus.subscribe(OWNER, SystemReady, came_back)

    async def _boot(self, kernel: Kernel) -> None:
        """Boot, unless the node is told to stop first. Raises: BootFailed, StartInterrupted; both rolled back."""
        boot, stop = asyncio.create_task(kernel.boot()), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({boot, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if is_interrupted := not boot.done():  # told to stop, or cancelled: nothing may go on to boot
                boot.cancel()
                await asyncio.wait({boot})
        if is_interrupted and (boot.cancelled() or boot.exception() is not None):
            raise StartInterrupted
        await boot

    def _ready(self, operators: NodeOperators, folder: DataFolder, admin_token: str | None) -> Ready:
        return Ready(
            status=operators.status(),
            pid=os.getpid(),
            data_dir=str(folder.path),
            log_file=str(folder.log_file),
            ready_s=round(time.monotonic() - self._started_s, 3),
            admin_token=admin_token,
        )

    def _assemble(self, settings: Settings, found: Found, beginning: Beginning) -> tuple[Kernel, NodeOperators]:
        config = beginning.config
        admin: AdminConfig = config.section("admin")
        operators = NodeOperators(admin.token_sha256)
        self._following.operators(operators)
        kernel = Kernel(
            components=found.classes,
            config=config,
            source=beginning.source,
            start=beginning.start,
            versions=beginning.versions,
            on_core_change=self._following.core_changed,
            vault=beginning.vault,
            data_dir=settings.folder.path,
            environment=settings.kernel.environment,
            instance_id=settings.folder.instance_id(),
            version=__version__,
            provided={Operators: operators},
            choice=Choice(
                only=settings.only,
                optional=found.optional,
                missing=found.missing,
                safe=settings.safe,
                **_wishes(config),
                sources=found.sources,
                notices=(*found.notices, *oversights(self._options, settings, sections_of(found.classes))),
            ),
            known=self._known,
            resolve=_resolve,
            on_exit=self._end,
        )
        operators.serve(kernel)
        kernel.services.commands.handle(OWNER, NodeStop, self._stop_asked)
        return kernel, operators

    async def _stop_asked(self, command: NodeStop, call: Call) -> Stopping:
        structlog.get_logger().bind(component="admin").info("told to stop by an operator", actor=call.actor.name)
        self._stop.set()
        return Stopping(os.getpid())

    def _end(self, reason: str) -> None:
        if not self._stop.is_set():  # else it was told to stop, and ends because of that
            self._ended_because = reason
            self._stop.set()


def _tell_if_it_failed(following: asyncio.Task[None]) -> None:
    """The node serves on, but no changed file and no signal reaches it any more: its operators must know."""
    if not following.cancelled() and (error := following.exception()) is not None:
        log = structlog.get_logger().bind(component="config")
        log.critical("settings are not followed any more; restart the node", exc_info=error)


def _wishes(config: Config) -> dict[str, Any]:
    """What the public port will want of the machine, when this node has one."""
    if "listener" not in config.sections:
        return {}
    listener = config.section("listener")
    return {"descriptors_wanted": listener.max_connections, "ports": [(listener.host, listener.port)]}


def _find(settings: Settings) -> Found:
    return find_components(
        settings.kernel.components,
        demo=settings.demo is not None,
        sections={name for layer in settings.layers for name in layer.values},
        asked=settings.only,
        lenient=settings.safe,
    )


def _resolve(name: str) -> Newcomer:
    """A component that is to join the running node. Raises: ComponentNotLoadable."""
    offer = locate(name)
    return Newcomer(load(offer), offer.source)


def run_node(
    options: NodeOptions,
    *,
    announce: Announce,
    folder_ready: FolderReady | None = None,
    known: KnownSecrets | None = None,
) -> None:
    """Run a node in this process until it is told to stop, on uvloop where that is installed.

    known: learns the secrets of the node, so that the caller can show what is raised without them. Raises: MagError.
    """

    notifier = Notifier.from_environment(os.environ)
    _leave_no_core()

    async def run() -> None:
        await Node(options, announce=announce, folder_ready=folder_ready, notifier=notifier, known=known).run()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run())


@contextmanager
def _telling_what_was_set(runtime: Runtime) -> Iterator[None]:
    """Whoever reads why the node failed looks into the files, where what was set at run time is not."""
    try:
        yield
    except MagError as error:
        if keys := sorted(runtime.overrides.keys() | runtime.patches.keys()):
            error.add_note(
                f"What `mag config:set` set counts above every file: {', '.join(keys)}. If it is that, `mag up --safe` "
                "starts without it, so that `mag config:unset KEY` can take it back."
            )
        raise


@contextmanager
def _logging(settings: LoggingConfig, folder: DataFolder, known: KnownSecrets) -> Iterator[LogOutput]:
    """Log to the data folder, and to stderr when that is asked for. Raises: DataFolderError and its kinds."""
    try:
        output = configure_logging(
            level=settings.level,
            format="pretty" if settings.format == "pretty" else "json",
            instance_id=folder.instance_id(),
            file=folder.log_file,
            stream=None if settings.format == "off" else sys.stderr,
            mask=known.value,
        )
    except OSError as error:
        raise data_folder_error(folder.path, error) from error
    try:
        yield output
    finally:
        output.close()


def _leave_no_core() -> None:
    """A core of this process, or of its database, would hold every secret. The hard limit stays, so that a developer
    can raise it again (`prlimit --core=unlimited --pid PID`).
    """
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _settle_memory() -> None:
    """Keep the garbage collector from walking through what the boot made, which stays for the life of the node.

    Full collections stopped the loop for up to 22 ms; with both lines the p99 of a read by primary key went from 2.6-9
    to 2.0-3.9 ms (several runs on a shared machine), with 2 % less CPU.
    """
    gc.unfreeze()  # after a reset: what the boot before it made may go
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # what requests leave behind is counted away, rarely in cycles


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
