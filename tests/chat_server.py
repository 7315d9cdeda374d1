"""A server on this machine that speaks OpenAI's protocol, with the faults that a test asks for."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class ChatServer:
    """Answers every request with ``default``, or with the next of ``planned`` while there are any.

    Attributes:
        requests: the JSON body of every request, in order of arrival.
        headers: likewise the headers.
        most_at_once: the largest number of requests that were under way at one time.
    """

    def __init__(self) -> None:
        self.planned: list[Answer] = []
        self.default: Answer = chat("fine")
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self._at_once: set[BaseHTTPRequestHandler] = set()
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.times.append(time.monotonic())
                    server.requests.append({"path": self.path, **body})
                    server.headers.append(dict(self.headers))
                    answer = server.planned.pop(0) if server.planned else server.default
                    server._at_once.add(self)
                    server.most_at_once = max(server.most_at_once, len(server._at_once))
                with contextlib.suppress(OSError):
                    answer(self, body)
                with server._lock:
                    server._at_once.discard(self)

            def end_headers(self) -> None:
                with server._lock:  # once the client has the answer it may ask again before this thread goes on
                    server._at_once.discard(self)
                super().end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a connection that a test broke on purpose

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@contextlib.contextmanager
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()
    try:
        yield server
    finally:
        server.close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def chat(text: Any, reason: str = "stop", pause: float = 0.0, **message: Any) -> Answer:
    """A whole answer of a model; ``message`` are further entries of the message."""

    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(pause)
        content = text(body) if callable(text) else text
        choice = {"finish_reason": reason, "message": {"role": "assistant", "content": content, **message}}
        send(handler, 200, json.dumps({"choices": [choice]}).encode())

    return answer


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    return lambda handler, _: send(handler, code, body, {name.replace("_", "-"): v for name, v in headers.items()})


def cut_short(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Half of an answer, and the end of the connection."""
    send(handler, 200, b'{"choices": [', {"Content-Length": "1000"})
    handler.close_connection = True


def reset(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """The connection is reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.shutdown(socket.SHUT_RD)
    handler.connection.close()
