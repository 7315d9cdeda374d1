"""Answers of web servers that are bounded in time and size, from their first byte on, whatever the server sends."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import IO, Any

from recbole_ser.errors import one_line

_clock = time.monotonic


class Broken(Exception):
    """The server did not give a whole answer; another attempt may succeed.  The message is one line."""


class Allowance:
    """What one request may take: ``size`` bytes within ``seconds``, status line and headers included.

    Time-outs of sockets count from one byte to the next, and Python's client reads any number of interim answers, so
    a server that goes on sending could hold a request, and its memory, for ever.

    Args:
        seconds, size: how much time and how many bytes there are from now on.
        too_slow: what is wrong once the time is over, for the error.
    """

    def __init__(self, seconds: float, size: int, too_slow: str) -> None:
        self.renew(seconds, size, too_slow)

    def renew(self, seconds: float, size: int, too_slow: str) -> None:
        """Allow as much as this from now on, whatever has been used before."""
        self._end, self._size, self._left, self._too_slow = _clock() + seconds, size, size, too_slow

    def seconds_left(self) -> float:
        """The time that is left; raises TimeoutError if there is none."""
        left = self._end - _clock()
        if left <= 0:
            raise TimeoutError(self._too_slow)
        return left

    def use(self, size: int) -> None:
        """Take ``size`` bytes from what is left; raises OSError if that is not enough."""
        self._left -= size
        if self._left < 0:
            raise OSError(f"the server sends more than {self._size:,} bytes")


def open_url(
    request: urllib.request.Request, allowance: Allowance, timeout: float, *handlers: Any
) -> http.client.HTTPResponse:
    """Send ``request``; the answer that is returned, and those that redirect to it, use up ``allowance``.

    Args:
        timeout: seconds without a byte.
        handlers: further handlers of ``urllib.request``, of redirections, say.

    Raises:
        Broken: no answer came.
        urllib.error.HTTPError: the server refuses.
    """
    opener = urllib.request.build_opener(_HTTP(allowance), _HTTPS(allowance), *handlers)
    with _failures():
        return opener.open(request, timeout=timeout)


def read_whole(response: http.client.HTTPResponse, limit: int) -> bytes:
    """The whole body.

    Raises:
        Broken: the body is cut off, or has ``limit`` bytes or more.
    """
    with _failures():
        content = response.read(limit)  # without a number, Python reserves as much memory as the header promises
        if len(content) == limit:
            raise OSError(f"the server sends more than {limit:,} bytes")
        if response.length:
            raise http.client.IncompleteRead(content, response.length)
    return content


def read_start(response: IO[bytes], limit: int) -> bytes:
    """The first ``limit`` bytes of the body, or all if it has fewer.

    Raises:
        Broken: as for ``read_some``.
    """
    with _failures():
        return response.read(limit)


def read_some(response: http.client.HTTPResponse, limit: int) -> bytes:
    """What has arrived of the body, at least one byte and at most ``limit``; nothing at its end.

    Raises:
        Broken: the connection broke, or the allowance is used up.
    """
    with _failures():
        return response.read1(limit)


@contextmanager
def _failures() -> Iterator[None]:
    """Raise Broken instead of all that Python's client raises at a broken connection or a wrong answer."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a wrong address to redirect to
        problem = one_line(str(getattr(error, "reason", error))) or type(error).__name__
        no_http = isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError)
        raise Broken(f"the server's answer is no HTTP: {problem}" if no_http else problem) from error


class _Bounded(urllib.request.AbstractHTTPHandler):
    def __init__(self, allowance: Allowance, **settings: Any) -> None:
        super().__init__(**settings)
        self._allowance = allowance

    def do_open(self, http_class: Any, req: urllib.request.Request, **arguments: Any) -> http.client.HTTPResponse:
        def connection(host: str, **settings: Any) -> http.client.HTTPConnection:
            made = http_class(host, **settings)
            made.response_class = partial(_Response, self._allowance)
            return made

        return super().do_open(connection, req, **arguments)  # type: ignore[arg-type]


class _HTTP(_Bounded, urllib.request.HTTPHandler):
    pass


class _HTTPS(_Bounded, urllib.request.HTTPSHandler):
    def __init__(self, allowance: Allowance) -> None:
        super().__init__(allowance, context=_tls())


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reading the certificates takes longer than many a request


class _Response(http.client.HTTPResponse):
    def __init__(self, allowance: Allowance, sock: socket.socket, *arguments: Any, **settings: Any) -> None:
        super().__init__(sock, *arguments, **settings)
        self.fp = io.BufferedReader(_Bytes(self.fp.detach(), sock, allowance))  # type: ignore[assignment]


class _Bytes(io.RawIOBase):
    """The bytes that arrive at a socket, as far as the allowance goes."""

    def __init__(self, raw: Any, sock: socket.socket, allowance: Allowance) -> None:
        self._raw, self._socket, self._allowance = raw, sock, allowance
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._allowance.seconds_left()
        self._socket.settimeout(left if self._timeout is None else min(left, self._timeout))
        try:
            size: int = self._raw.readinto(buffer)
        except TimeoutError:
            self._allowance.seconds_left()  # says so if it is not just a pause between two bytes that was too long
            raise
        self._allowance.use(size)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()
