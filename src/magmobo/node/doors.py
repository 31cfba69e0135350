"""The operators' doors of a node: the control socket, and the HTTP listener with metrics and probes.

They open before the kernel boots, so that a boot can be watched, and close after it has gone. Invariant: closing ends
every conversation; the socket's file goes while the lock of the data folder is still held.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from magmobo.admin.data_folder import DataFolder
from magmobo.admin.http import AdminHttp, Reply
from magmobo.admin.server import ControlServer
from magmobo.contracts import probes
from magmobo.kernel.config.core import AdminConfig
from magmobo.node.operators import NodeOperators


class Doors:
    """Both doors of one node."""

    def __init__(self, folder: DataFolder, config: AdminConfig, operators: NodeOperators) -> None:
        self._operators = operators
        self._startup = probes.StartupProbe()
        self._control = ControlServer(
            folder.control_socket,
            operators,
            log=structlog.get_logger().bind(component="admin"),
            hide=operators.kernel.services.known.text,
        )
        pages = {
            "/metrics": self._metrics,
            probes.LIVE_PATH: self._live,
            probes.READY_PATH: self._ready,
            probes.STARTUP_PATH: self._started,
        }
        self._http = AdminHttp(config.host, config.port, pages)

    async def open(self) -> None:
        """Raises: DataFolderError and its kinds, ControlPathTooLong, AdminPortTaken; then neither is open."""
        await self._control.open()
        try:
            await self._http.open()
        except BaseException:
            await self._control.hang_up()
            raise
        self._operators.kernel.inspection.offer("metrics", f"{self._http.base_url}/metrics")

    def shut(self) -> None:
        """Take no new conversation over the socket and remove it; call it while still holding the lock."""
        self._control.shut_door()

    async def close(self) -> None:
        """End every conversation. Who asked for the stop learns by it that the node is gone."""
        await self._http.close()
        await self._control.hang_up()

    # ------------------------------------------------------------ pages

    def _metrics(self, headers: Mapping[str, str], query: str) -> Reply:
        content_type, text = self._operators.kernel.services.metrics.exposition(headers.get("accept", ""))
        return Reply(200, text, content_type)

    def _live(self, headers: Mapping[str, str], query: str) -> Reply:
        return _reply(probes.live())

    def _ready(self, headers: Mapping[str, str], query: str) -> Reply:
        node = self._operators.status()
        self._startup.answer(node)  # so that a node that is only ever asked for readiness is remembered, too
        return _reply(probes.ready(node, verbose=probes.wants_verbose(query)))

    def _started(self, headers: Mapping[str, str], query: str) -> Reply:
        return _reply(self._startup.answer(self._operators.status()))


def _reply(answer: probes.ProbeAnswer) -> Reply:
    return Reply(answer.status, answer.body, answer.content_type)
