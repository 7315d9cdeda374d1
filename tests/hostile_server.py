"""A server on this machine that sends any bytes at any pace, whether or not they are HTTP."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

Play = Callable[[socket.socket, bytes], None]


class HostileServer:
    """Reads a request and calls ``play`` with the connection and the request's header, once for each connection.

    Attributes:
        play: what is done with a request.
        requests: the headers of the requests, in order of arrival.
        closing: set when the server ends, for those who send without end.
    """

    def __init__(self) -> None:
        self.play: Play = lambda connection, header: None
        self.requests: list[bytes] = []
        self.closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection, self.play), daemon=True).start()

    def _serve(self, connection: socket.socket, play: Play) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(5.0)
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            header, _, body = received.partition(b"\r\n\r\n")
            length = [
                line.split(b":")[1] for line in header.split(b"\r\n") if line.lower().startswith(b"content-length")
            ]
            while length and len(body) < int(length[0]):
                body += connection.recv(65536)
            self.requests.append(header)
            play(connection, header)


@contextlib.contextmanager
def hostile_server() -> Iterator[HostileServer]:
    server = HostileServer()
    try:
        yield server
    finally:
        server.close()


def at_once(data: bytes) -> Play:
    return lambda connection, _: connection.sendall(data)


def endlessly(server: HostileServer, begin: bytes, again: bytes) -> Play:
    """Send ``begin``, and then ``again`` as fast as possible and for ever."""

    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begin)
        block = again * (1 + (1 << 16) // len(again))
        while not server.closing.is_set():
            connection.sendall(block)

    return play


def dripping(server: HostileServer, begin: bytes, again: bytes, pause: float) -> Play:
    """Send ``begin``, and then ``again`` after every ``pause`` in seconds."""

    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begin)
        while not server.closing.wait(pause):
            connection.sendall(again)

    return play


def reset_after(data: bytes) -> Play:
    """Send ``data`` and reset the connection."""

    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return play


def stalled_after(server: HostileServer, data: bytes) -> Play:
    """Send ``data``, and nothing more though the connection stays open."""

    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(data)
        server.closing.wait(5.0)

    return play
