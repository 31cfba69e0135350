"""An HTTP server that answers as a test tells it to, byte by byte, and remembers what it was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class StrangeServer:
    """`answer` writes to each connection after one request came; the connection ends when it returns."""

    def __init__(self, answer: Callable[[socket.socket, threading.Event], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request and not request.startswith(b"\x16") and (chunk := connection.recv(65_536)):
                request += chunk
            self.requests.append(request)
            self._answer(connection, self._ended)

    def close(self) -> None:
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join()


@contextmanager
def strange_server(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[StrangeServer]:
    server = StrangeServer(answer)
    try:
        yield server
    finally:
        server.close()


def http(status: str, body: bytes = b"", *headers: str) -> Callable[[socket.socket, threading.Event], None]:
    """An answer with this status and body, whatever is asked."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    whole = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    return lambda connection, _: connection.sendall(whole)
