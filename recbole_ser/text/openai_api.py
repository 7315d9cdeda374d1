"""A client of servers that speak OpenAI's protocol: vLLM, Ollama, llama.cpp, OpenAI itself."""

from __future__ import annotations

import email.utils
import json
import logging
import math
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from recbole_ser.errors import ConfigError, UserError, one_line
from recbole_ser.records import parse_json
from recbole_ser.web import Allowance, Broken, open_url, read_start, read_whole

T = TypeVar("T")
R = TypeVar("R")

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds; the pause doubles with every attempt
_LONGEST_RETRY_AFTER = 3600.0
_TRANSIENT = {408, 409, 425, 429}  # and every 5xx
_LARGEST_CHAT = 16 << 20  # bytes of an answer, hundreds of times what the longest takes
_LARGEST_VECTOR = 256 << 10  # bytes for each vector in an answer, enough for 10,000 numbers of full length
_HEADER = 1 << 20  # bytes that may come before and around the body of an answer
_log = logging.getLogger(__name__)
_random = random.Random()  # RecBole seeds the global one, and runs must not depend on how often a server was busy
_clock, _wait, _now = time.monotonic, time.sleep, time.time


class UnusableAnswer(UserError):
    """The server answered, but the text is cut off, refused or empty; asking again may help.

    Args:
        problem: what is wrong with the answer.
        answer: the text of the answer, as far as there is one.
    """

    def __init__(self, problem: str, answer: str = "") -> None:
        self.problem, self.answer = problem, answer
        super().__init__(f"{problem}: {answer[:200]!r}")


class _Failed(Exception):
    """One attempt failed, but another may succeed after ``pause``, the seconds that the server asks to wait."""

    def __init__(self, problem: str, pause: float = 0.0) -> None:
        self.pause = pause
        super().__init__(problem)


class Client:
    """Requests to one model of one server, from any number of threads.

    A request is tried again after a time-out, a broken connection, an answer 408, 409, 425, 429 or 5xx, or a body that
    does not follow the protocol or is too large (16 MiB, or 256 KiB for each vector).  The pause is 1, 2, 4 ... seconds
    (at most 60), less up to a half at random, or what ``Retry-After`` says, which holds back every thread.  The key is
    sent to the server and appears nowhere else; redirections are not followed.

    Args:
        base_url: address of the server with the version of the protocol, such as ``http://localhost:8000/v1``.
        model: name of the model at the server.
        api_key_variable: environment variable that holds the key, which is sent as a bearer token; by default none is
            sent.  The key itself is no setting, since configurations are written to files.
        timeout: seconds from a request to the end of its answer.
        concurrency: number of requests that ``each`` sends at the same time.
        retries: number of further attempts after the first.
        requests_per_minute: the largest rate of requests, which are evenly spaced; every attempt counts.

    Raises:
        ConfigError: an argument is wrong, or the variable is not set.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_variable: str | None = None,
        timeout: float = 600.0,
        concurrency: int = 8,
        retries: int = 5,
        requests_per_minute: float | None = None,
    ) -> None:
        for name, value, right in [
            ("timeout", timeout, 0 < timeout < math.inf),
            ("concurrency", concurrency, concurrency >= 1),
            ("retries", retries, retries >= 0),
            ("requests_per_minute", requests_per_minute, requests_per_minute is None or requests_per_minute > 0),
        ]:
            if not right:
                raise ConfigError(f"{name}: {value} is out of range")
        self.base_url, self.model = _checked_url(base_url), model
        self.timeout, self.concurrency, self.retries = timeout, concurrency, retries
        self._key = _key_in(api_key_variable)
        self._pace = _Pace(60.0 / requests_per_minute if requests_per_minute else 0.0)

    def chat(self, messages: Sequence[Mapping[str, str]], **parameters: Any) -> str:
        """The answer to a conversation.

        Args:
            messages: the conversation so far, as mappings with ``role`` and ``content``.
            parameters: sent as they are: ``temperature``, ``max_tokens``, ``seed``, ``response_format``, ...

        Raises:
            UnusableAnswer: the answer is cut off at the limit of tokens, refused or empty.
            UserError: the server refuses the request, or every attempt failed.
        """
        choice = self._post("chat/completions", {"messages": list(messages), **parameters}, _choice, _LARGEST_CHAT)
        message, reason = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content") or "", message.get("refusal")
        if not isinstance(text, str):
            raise UnusableAnswer("the answer is no text", f"a {type(text).__name__}")
        if refusal or reason == "content_filter":
            raise UnusableAnswer("the model refuses to answer", refusal if isinstance(refusal, str) else text)
        if reason == "length":
            raise UnusableAnswer("the answer is cut off at the limit of tokens", text)
        if not text.strip():
            raise UnusableAnswer("the answer is empty")
        return text

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vector of each text, all in one request; the numbers are finite in single precision too.

        Raises:
            UserError: the server refuses the request, or every attempt failed.
        """
        body = {"input": list(texts), "encoding_format": "float"}
        limit = max(_LARGEST_CHAT, len(texts) * _LARGEST_VECTOR)
        return self._post("embeddings", body, lambda answer: _vectors(answer, len(texts)), limit)

    def each(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Call ``function`` on every task in ``concurrency`` threads, and yield (place in ``tasks``, result) of each.

        Results come as they arrive, and the next task starts only after a result has been taken.  After an exception no
        further task starts; the results of those under way are still given, and then the exception is raised.
        """
        error: BaseException | None = None
        waiting = iter(enumerate(tasks))
        running: dict[Future[R], int] = {}
        with ThreadPoolExecutor(self.concurrency) as pool:
            while True:
                if error is None:
                    for place, task in islice(waiting, self.concurrency - len(running)):
                        running[pool.submit(function, task)] = place
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    place = running.pop(future)
                    if (problem := future.exception()) is None:
                        yield place, future.result()
                    else:
                        error = error or problem
        if error is not None:
            raise error

    def _post(self, path: str, body: dict[str, Any], read: Callable[[Any], R], limit: int) -> R:
        """Send ``body``, and return what ``read`` makes of the server's answer, which has less than ``limit`` bytes.

        ``read`` raises AttributeError, LookupError, OverflowError, TypeError or ValueError if the answer does not
        follow the protocol.
        """
        url = f"{self.base_url}/{path}"
        data = json.dumps({"model": self.model, **body}).encode("ascii")
        for attempt in range(self.retries + 1):
            self._pace.take_turn()
            try:
                return self._attempt(url, data, read, limit)
            except _Failed as failure:
                problem = self._without_key(str(failure))
                self._pace.hold(failure.pause)
                if attempt == self.retries:
                    break
                pause = min(_FIRST_PAUSE * 2.0**attempt, _LONGEST_PAUSE) * _random.uniform(0.5, 1.0)
                _log.warning("%s: %s; trying again in %.1f s", url, problem, max(pause, failure.pause))
                _wait(max(pause, failure.pause))
        raise UserError(f"{url}: {problem}, {self.retries + 1} times: is the server up?")

    def _attempt(self, url: str, data: bytes, read: Callable[[Any], R], limit: int) -> R:
        headers = {"Content-Type": "application/json", "User-Agent": "recbole_ser"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(url, data, headers)
        allowance = Allowance(self.timeout, limit + _HEADER, f"no whole answer within {self.timeout:g} s")
        try:
            with open_url(request, allowance, self.timeout, _NoRedirect) as response:
                content = read_whole(response, limit)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(url, error) from None
        except Broken as error:
            raise _Failed(str(error)) from error
        try:
            return read(parse_json(content))
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            beginning = content[:200].decode("utf-8", "replace")
            problem = f"the server's answer is not the protocol's ({one_line(str(error), 100)}): {beginning!r}"
            raise _Failed(problem) from error

    def _refused(self, url: str, error: urllib.error.HTTPError) -> Exception:
        problem = f"the server answers {error.code} {one_line(error.reason)}{_detail(error)}"
        if error.code not in _TRANSIENT and error.code < 500:
            return UserError(f"{url}: {self._without_key(problem)}")
        pause = _retry_after(error.headers.get("Retry-After"))
        if pause > _LONGEST_RETRY_AFTER:
            return UserError(f"{url}: {self._without_key(problem)}: it asks to wait {pause:,.0f} s; try again then")
        return _Failed(problem, pause)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Pace:
    """Keeps the starts of requests at least ``interval`` seconds apart, across all threads."""

    def __init__(self, interval: float) -> None:
        self._interval, self._next, self._lock = interval, -math.inf, threading.Lock()

    def take_turn(self) -> None:
        while True:
            with self._lock:
                now = _clock()
                if now >= self._next:
                    self._next = now + self._interval
                    return
                pause = self._next - now
            _wait(pause)

    def hold(self, seconds: float) -> None:
        """Let no request start in the next ``seconds``."""
        with self._lock:
            self._next = max(self._next, _clock() + seconds)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None  # becomes an HTTPError with the server's code


def _choice(answer: Any) -> dict[str, Any]:
    choice = answer["choices"][0]
    choice["message"].get("content")
    return choice


def _vectors(answer: Any, count: int) -> list[list[float]]:
    entries = sorted(answer["data"], key=lambda entry: entry["index"])
    if [entry["index"] for entry in entries] != list(range(count)):
        raise ValueError(f"{len(entries)} vectors for {count} texts")
    vectors = [[_number(value) for value in entry["embedding"]] for entry in entries]
    widths = {len(vector) for vector in vectors}
    if len(widths) != 1 or 0 in widths:
        raise ValueError(f"vectors with {' and '.join(map(str, sorted(widths)))} numbers")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.array(vectors, dtype=np.float32)).all():
            raise ValueError("a number that is not finite in single precision")
    return vectors


def _number(value: Any) -> float:
    if type(value) not in (int, float):  # a text of digits, say, which is a sequence too
        raise TypeError("a vector with something else than numbers")
    return float(value)


def _detail(error: urllib.error.HTTPError) -> str:
    """The server's own error message, as far as it can be read."""
    try:
        text = read_start(error.fp, 2000).decode("utf-8", "replace")
    except Broken:
        return ""
    try:
        message = parse_json(text)["error"]["message"]
    except (LookupError, TypeError, ValueError):
        message = text
    shown = one_line(message if isinstance(message, str) else text)
    return f": {shown}" if shown else ""


def _retry_after(value: str | None) -> float:
    """The seconds that the header gives, or those until its date; 0 if there is no header that can be read."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - _now()
        except (ValueError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if not math.isnan(seconds) else 0.0


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigError("base_url: a user name or password in it would end up in logs: give a key instead")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or " " in url:
        raise ConfigError("base_url: not an address such as http://localhost:8000/v1, without '?' and '#'")
    return url.rstrip("/")


def _key_in(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"api_key_variable: the environment variable '{variable}' is not set")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError("the API key holds characters that a header cannot carry")
    return key
