"""The client of OpenAI-compatible servers against a server with every fault it has to live with."""

from __future__ import annotations

import email.utils
import json
import logging
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import ChatServer, chat, chat_server, cut_short, reset, send, status
from hostile_server import HostileServer, at_once, dripping, endlessly, hostile_server

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.text import openai_api
from recbole_ser.text.openai_api import Client, UnusableAnswer

KEY = "sk-very-secret-0123456789"
ASKED = [{"role": "user", "content": "What?"}]


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self._lock = threading.Lock()

    def wait(self, seconds: float) -> None:
        with self._lock:
            self.waits.append(seconds)
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(openai_api, "_clock", lambda: clock.now)
    monkeypatch.setattr(openai_api, "_wait", clock.wait)
    monkeypatch.setattr(openai_api, "_now", lambda: 1_700_000_000.0 + clock.now)
    return clock


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[ChatServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MY_KEY", KEY)
    with chat_server() as server:
        yield server


def client(server: ChatServer, **arguments: Any) -> Client:
    return Client(server.url, "small", **{"timeout": 5.0, "retries": 3, **arguments})


def test_a_conversation(server: ChatServer) -> None:
    server.default = chat("Well.")
    assert client(server, api_key_variable="MY_KEY").chat(ASKED, temperature=0.5, seed=3) == "Well."
    assert server.requests == [
        {"path": "/v1/chat/completions", "model": "small", "messages": ASKED, "temperature": 0.5, "seed": 3}
    ]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent(server: ChatServer) -> None:
    client(server).chat(ASKED)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    "fault",
    [
        status(500), status(502), status(503, b"busy"), status(429), status(408), cut_short, reset,
        status(200, b"<html>a proxy</html>"), status(200, b'{"choices": []}'), status(200, b"null"),
        status(200, b'{"error": {"message": "overloaded"}}'), status(200, b'{"choices": [{"message": null}]}'),
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again(server: ChatServer, clock: Clock, fault: Any) -> None:
    server.planned = [fault, fault]
    assert client(server).chat(ASKED) == "fine"
    assert len(server.requests) == 3
    assert len(clock.waits) == 2 and 0.5 <= clock.waits[0] <= 1.0 <= clock.waits[1] <= 2.0, "1 s and 2 s, less jitter"


def test_a_server_that_does_not_answer_in_time(server: ChatServer) -> None:
    server.planned = [chat("late", pause=1.0)]
    assert client(server, timeout=0.2).chat(ASKED) == "fine"
    assert len(server.requests) == 2


@pytest.mark.parametrize(("fault", "words"), [(status(500, b"oops"), "500 .*oops"), (reset, "[Cc]onnection|closed")])
def test_after_the_last_attempt_it_says_so(server: ChatServer, clock: Clock, fault: Any, words: str) -> None:
    server.default = fault
    with pytest.raises(UserError, match=rf"chat/completions: .*({words}).*4 times") as caught:
        client(server).chat(ASKED)
    assert not isinstance(caught.value, UnusableAnswer)
    assert len(server.requests) == 4 and len(clock.waits) == 3


def test_nobody_there(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with chat_server() as server:
        url = server.url
    with pytest.raises(UserError, match=r"refused, 2 times: is the server up\?"):
        Client(url, "small", retries=1).chat(ASKED)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_what_the_server_refuses_is_not_asked_again(server: ChatServer, code: int) -> None:
    server.default = status(code, json.dumps({"error": {"message": "no such model"}}).encode())
    with pytest.raises(UserError, match=rf"the server answers {code} .*: no such model"):
        client(server).chat(ASKED)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("value", "least"), [("7", 7), ("0.5", 0), ("soon", 0), ("-3", 0), ("nan", 0), ("a date", 30), ("a past date", 0)]
)
def test_retry_after_is_honoured(server: ChatServer, clock: Clock, value: str, least: float) -> None:
    value = {"a date": email.utils.formatdate(1_700_000_000 + 1030, usegmt=True),
             "a past date": email.utils.formatdate(1_600_000_000, usegmt=True)}.get(value, value)  # fmt: skip
    server.planned = [status(429, Retry_After=value)]
    assert client(server).chat(ASKED) == "fine"
    assert max(least, 0.5) <= sum(clock.waits) <= least + 1


def test_retry_after_holds_everybody_back(server: ChatServer, clock: Clock) -> None:
    server.default = status(503, Retry_After="20")
    one = client(server, retries=0)
    with pytest.raises(UserError):
        one.chat(ASKED)
    server.default = chat("fine")
    one.chat(ASKED)
    assert clock.now == 1020.0


def test_a_pause_of_hours_is_not_waited_for(server: ChatServer, clock: Clock) -> None:
    server.default = status(429, Retry_After="86400")
    with pytest.raises(UserError, match="asks to wait 86,400 s"):
        client(server).chat(ASKED)
    assert clock.waits == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (chat("half an ans", reason="length"), "cut off.*half an ans"),
        (chat(None, refusal="I cannot do that"), "refuses.*I cannot do that"),
        (chat("", reason="content_filter"), "refuses"),
        (chat(None), "empty"),
        (chat(" \n"), "empty"),
        (chat([{"type": "text"}]), "no text"),
    ],
)
def test_an_answer_that_cannot_be_used(server: ChatServer, answer: Any, words: str) -> None:
    server.default = answer
    with pytest.raises(UnusableAnswer, match=words):
        client(server).chat(ASKED)
    assert len(server.requests) == 1


def test_redirections_are_not_followed(server: ChatServer) -> None:
    with chat_server() as other:
        for code in (301, 302, 307, 308):
            server.default = status(code, Location=f"{other.url}/chat/completions")
            with pytest.raises(UserError, match=f"the server answers {code}"):
                client(server, api_key_variable="MY_KEY").chat(ASKED)
        assert other.requests == []


def test_the_key_is_nowhere_else(
    server: ChatServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode()
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    one = client(server, api_key_variable="MY_KEY", retries=1)
    said = [repr(one), str(one)]
    with caplog.at_level(logging.DEBUG):
        for fault in (status(500, echo), status(401, echo), status(429, echo), status(200, echo), cut_short, reset):
            server.default = fault
            with pytest.raises(UserError) as caught:
                one.chat(ASKED)
            said += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "trying again" in caplog.text
    assert KEY not in caplog.text + "".join(said)


@pytest.mark.parametrize("key", [f"{KEY}\nX: y", f"{KEY}é", f"{KEY} {KEY}"])
def test_a_key_that_no_header_can_carry(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ConfigError, match="API key") as caught:
        Client("http://localhost/v1", "small", "MY_KEY")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"base_url": "localhost:8000/v1"}, {"base_url": "ftp://localhost"}, {"base_url": "http://"},
        {"base_url": f"http://me:{KEY}@localhost/v1"}, {"base_url": f"http://localhost/v1?key={KEY}"},
        {"base_url": "http://local host/v1"}, {"timeout": 0}, {"timeout": float("inf")}, {"concurrency": 0},
        {"retries": -1}, {"requests_per_minute": 0},
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(**{"base_url": "http://localhost/v1", "model": "small", **arguments})
    assert KEY not in str(caught.value)


def test_the_rate_limit_counts_every_attempt(server: ChatServer, clock: Clock) -> None:
    one = client(server, requests_per_minute=30)
    server.planned = [chat("fine"), status(500)]
    for _ in range(4):
        one.chat(ASKED)
    assert len(server.requests) == 5
    assert clock.now == pytest.approx(1000 + 4 * 2.0), "five requests, two seconds apart"


def test_the_rate_limit_of_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with chat_server() as server:
        one = Client(server.url, "small", concurrency=6, requests_per_minute=60 / 0.05)
        begin = time.monotonic()
        assert len(list(one.each(lambda _: one.chat(ASKED), range(12)))) == 12
        assert time.monotonic() - begin >= 11 * 0.05
        assert server.times[5] - begin >= 5 * 0.05, "no burst at the beginning"


def test_each_is_bounded_and_complete(server: ChatServer) -> None:
    server.default = chat(lambda body: body["messages"][0]["content"], pause=0.02)
    one = client(server, concurrency=3)
    results = dict(one.each(lambda word: one.chat([{"role": "user", "content": word}]), [f"w{n}" for n in range(12)]))
    assert results == {n: f"w{n}" for n in range(12)}
    assert server.most_at_once == 3
    assert list(one.each(str, [])) == []


def test_after_an_error_what_is_under_way_still_arrives(server: ChatServer) -> None:
    started, release = [], threading.Event()

    def work(number: int) -> int:
        started.append(number)
        if number == 0:
            raise UserError("zero")
        release.wait(5)
        return number

    results = []
    threading.Timer(0.2, release.set).start()
    with pytest.raises(UserError, match="zero"):
        for result in client(server, concurrency=3).each(work, range(100)):
            results.append(result)
    assert sorted(started) == [0, 1, 2]
    assert sorted(results) == [(1, 1), (2, 2)]


def vectors(*entries: tuple[int, Any]) -> Any:
    body = json.dumps({"data": [{"index": index, "embedding": vector} for index, vector in entries]}).encode()
    return lambda handler, _: send(handler, 200, body)


def test_vectors_come_in_the_order_of_the_texts(server: ChatServer) -> None:
    server.default = vectors((1, [3, 4]), (0, [1.5, 2]))
    assert client(server).embed(["one", "two"]) == [[1.5, 2.0], [3.0, 4.0]]
    expected = {"model": "small", "input": ["one", "two"], "encoding_format": "float"}
    assert server.requests == [{"path": "/v1/embeddings", **expected}]


@pytest.mark.parametrize(
    "answer",
    [
        vectors((0, [1.0])),
        vectors((0, [1.0]), (0, [2.0])),
        vectors((0, [1.0]), (1, [2.0, 3.0])),
        vectors((0, [1.0]), (1, [None])),
        vectors((0, [1.0]), (1, [float("nan")])),
        vectors((0, [1.0]), (1, "AAAA")),
        status(200, b'{"data": null}'),
    ],
)
def test_wrong_vectors_are_no_vectors(server: ChatServer, answer: Any) -> None:
    server.default = answer
    with pytest.raises(UserError, match="not the protocol's"):
        client(server).embed(["one", "two"])
    assert len(server.requests) == 4


# --- hostile servers --------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[HostileServer]:
    monkeypatch.setenv("no_proxy", "*")
    with hostile_server() as server:
        yield server


OK = b"HTTP/1.1 200 OK\r\n"
BEGINNING = OK + b'\r\n{"choices": ['


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (lambda server: dripping(server, BEGINNING, b" ", 0.02), "no whole answer within 0.2 s"),
        (lambda server: dripping(server, OK, b"X", 0.02), "no whole answer within 0.2 s"),
        (lambda server: dripping(server, b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02), "no whole answer within 0.2 s"),
        (lambda server: dripping(server, OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", 0.02), "within"),
        (lambda server: dripping(server, b"HTTP/1.1 500 Oops\r\n\r\n", b"a", 0.02), "answers 500 Oops"),
        (lambda server: endlessly(server, BEGINNING, b"[1],"), "more than [0-9,]+ bytes"),
        (lambda server: endlessly(server, b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "more than [0-9,]+ bytes|within"),
        (lambda server: endlessly(server, OK, b"X: y\r\n"), "more than 100 headers"),
        (lambda server: endlessly(server, OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b"a"), "more than [0-9,]+"),
        (lambda server: at_once(OK + b"Content-Length: 1000000000000000\r\n\r\n{}"), "IncompleteRead"),
        (lambda server: at_once(b"\x00\x1b[2J\r\n\r\n"), r"no HTTP: \[2J,"),
        (lambda server: at_once(b"HTTP/1.1 302 Moved\r\nLocation: http://[\r\n\r\n"), "Invalid IPv6 URL"),
    ],
    ids=["dripped body", "dripped header", "dripped interim answers", "dripped trailers", "dripped error",
         "endless body", "endless interim answers", "endless headers", "chunk below 0", "promised length", "no HTTP",
         "no address"],
)  # fmt: skip
def test_no_answer_takes_for_ever_or_all_memory(
    hostile: HostileServer, play: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_api, "_LARGEST_CHAT", 1 << 20)
    hostile.play = play(hostile)
    begin, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=words) as caught:
        Client(f"{hostile.url}/v1", "small", timeout=0.2, retries=0).chat(ASKED)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    assert time.monotonic() - begin < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 << 10, "64 MiB, in KiB"


def test_other_requests_go_on_beside_a_hostile_answer(server: ChatServer) -> None:
    def drip(handler: Any, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.02)

    server.planned = [drip]
    one = client(server, concurrency=2, timeout=0.3, retries=1)
    assert dict(one.each(lambda _: one.chat(ASKED), range(8))) == dict.fromkeys(range(8), "fine")


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    "body",
    [NESTED, '{"choices": ' + NESTED, "1" * 5000, '{"data": [{"index": 0, "embedding": [1' + "0" * 400 + "]}]}"],
    ids=["nested", "nested inside", "digits", "10 ** 400"],
)
@pytest.mark.parametrize("ask", [lambda one: one.chat(ASKED), lambda one: one.embed(["one"])], ids=["chat", "embed"])
def test_json_that_cannot_be_read_is_no_answer(server: ChatServer, body: str, ask: Any) -> None:
    server.default = status(200, body.encode())
    with pytest.raises(UserError, match="not the protocol's") as caught:
        ask(client(server, retries=0))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("vector", "words"),
    [([1e39], "not finite in single precision"), ([-1e39, 0], "not finite"), ([], "vectors with 0"),
     ("12", "than numbers"), ([True], "than numbers"), (["1"], "than numbers")],
)  # fmt: skip
def test_vectors_that_no_cache_should_get(server: ChatServer, vector: Any, words: str) -> None:
    server.default = vectors((0, vector))
    with pytest.raises(UserError, match=rf"not the protocol's \(.*{words}"):
        client(server, retries=0).embed(["one"])


def test_an_error_of_many_lines_becomes_one(server: ChatServer) -> None:
    server.default = status(400, b"<html>\n<h1>\x1b[31mBad\x1b[0m\n</h1>" + b"x" * 5000)
    with pytest.raises(UserError, match=r"400 Bad Request: <html> <h1> \[31mBad") as caught:
        client(server).chat(ASKED)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
