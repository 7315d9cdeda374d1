"""Hostile answers of a server to the client of language models, and to downloads of raw files."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from hostile_server import HostileServer, Play, at_once, dripping, endlessly, reset_after, stalled_after

from campaign import Attack
from recbole_ser.convert import fetch
from recbole_ser.errors import UserError
from recbole_ser.text import openai_api
from recbole_ser.text.openai_api import Client
from recbole_ser.text.summaries.prompts import parse

SECONDS = 0.3  # what the client and downloads wait for
MOST_MEMORY = 400 << 20  # bytes that the process may grow by, with all the answers that were under way
CONTENT = gzip.compress(bytes(range(256)) * 64 + os.urandom(20_000))
SUMMARY = "likes red shoes"
ATTEMPTS = 4


def prepare(folder: Path) -> Attack:
    server = HostileServer()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

    def attack(random: Random) -> str:
        target = random.choice([_ask, _embed, _download])
        begin = time.monotonic()
        patches = [
            mock.patch.dict(os.environ, no_proxy="*"),
            mock.patch.object(openai_api, "_wait", lambda seconds: None),
            mock.patch.object(openai_api._log, "disabled", True),
            mock.patch.object(fetch._log, "disabled", True),
            mock.patch.multiple(
                fetch, _wait=lambda seconds: None, _TIMEOUT=SECONDS, _PATIENCE=2 * SECONDS, _LEAST=1 << 12,
                _LARGEST=4 << 20,
            ),
        ]  # fmt: skip
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            outcome = target(server, folder, random)
        assert time.monotonic() - begin < ATTEMPTS * 4 * SECONDS + 5, f"it took {time.monotonic() - begin:.1f} s"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
        assert grown < MOST_MEMORY, f"memory grew by {grown:,} bytes"
        return f"{target.__name__.strip('_')} {outcome}"

    return attack


# --- what is attacked -------------------------------------------------------------------------------------------------


def _ask(server: HostileServer, folder: Path, random: Random) -> str:
    bodies = [_chat_body(random) for _ in range(2)]
    server.play = _in_turn([_hostile(server, random, body) for body in bodies])

    def ask() -> None:
        answer = _client(server, random).chat([{"role": "user", "content": "What?"}])
        assert any(json.dumps(answer)[1:-1] in body.decode("utf-8", "replace") for body in bodies), answer[:80]
        assert parse(answer) == SUMMARY

    return _outcome(ask)


def _embed(server: HostileServer, folder: Path, random: Random) -> str:
    body = _vector_body(random)
    server.play = _hostile(server, random, body)

    def embed() -> None:
        vectors = _client(server, random).embed(["one", "two"])
        assert vectors == [[0.5, -2.0], [3.0, 4e30]], vectors

    return _outcome(embed)


def _download(server: HostileServer, folder: Path, random: Random) -> str:
    """A download, and the same from a good server afterwards, which must bring the file whatever came before."""
    path, checksum = folder / "file.gz", hashlib.sha256(CONTENT).hexdigest()
    server.play = _in_turn([_hostile(server, random, CONTENT) for _ in range(random.randint(1, 6))])
    if random.random() < 0.2:
        (folder / "file.gz.part").write_bytes(random.randbytes(random.choice([0, 100, len(CONTENT), 100_000])))
        record = _damaged(
            random, json.dumps({"url": f"{server.url}/f", "validator": '"1"', "size": len(CONTENT)}).encode()
        )
        (folder / "file.gz.part.json").write_bytes(record)
    outcome = _outcome(lambda: fetch.fetch(f"{server.url}/f", path, checksum=checksum))
    if outcome != "done":
        assert not path.exists()
        server.play = _good_file
        fetch.fetch(f"{server.url}/f", path, checksum=checksum)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in folder.iterdir()] == [path.name]
    path.unlink()
    return outcome


def _outcome(call: Callable[[], None]) -> str:
    try:
        call()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500 and str(error).isprintable(), repr(str(error))
        return "refused"
    return "done"


def _client(server: HostileServer, random: Random) -> Client:
    return Client(f"{server.url}/v1", "small", timeout=SECONDS, retries=random.randint(0, 2))


# --- how answers come -------------------------------------------------------------------------------------------------


def _in_turn(plays: list[Play]) -> Play:
    def play(connection: Any, header: bytes) -> None:
        (plays.pop(0) if len(plays) > 1 else plays[0])(connection, header)

    return play


def _good_file(connection: Any, header: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT)


def _hostile(server: HostileServer, random: Random, body: bytes) -> Play:
    head = _head(random, body)
    data = head + (_chunked(random, body) if b"chunked" in head else body)
    if random.random() < 0.1:
        data = _damaged(random, data)
    if random.random() < 0.6:
        return at_once(data)
    cut = random.randrange(len(data) + 1)
    return random.choice([
        at_once(data[:cut]), reset_after(data[:cut]),
        stalled_after(server, data[:cut]), dripping(server, data[:cut], random.choice([b"a", b" ", b"\r\n"]), 0.02),
        endlessly(server, data[:cut], random.choice([b"a", b"\0", b"[", b"X: y\r\n", b"0\r\n", b"1\r\na\r\n"])),
        endlessly(server, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ])  # fmt: skip


def _head(random: Random, body: bytes) -> bytes:
    status = "HTTP/1.1 200 OK" if random.random() < 0.7 else random.choice([
        "HTTP/1.1 206 Partial", "HTTP/1.0 200", "HTTP/1.1 204 No",
        "HTTP/1.1 302 Moved", "HTTP/1.1 308 Moved", "HTTP/1.1 401 \x1b[2J" + "no" * 4000, "HTTP/1.1 416 Range",
        "HTTP/1.1 500 Oops", "HTTP/1.1 999 What", "HTTP/1.1 -1 No", "HTTP/9.9 200 OK", "ICY 200 OK", "", "\x00" * 50,
        "HTTP/1.1 " + "9" * 5000, "A" * 100_000,
    ])  # fmt: skip
    length = len(body) if random.random() < 0.7 else random.choice([
        len(body) + 1, len(body) - 1, -1, 0, 10**15, 10**30, "9" * 5000, "many", "+7",
        "1_0", f"{len(body)}, {len(body)}",
    ])  # fmt: skip
    headers = [f"Content-Length: {length}"] if random.random() < 0.8 else []
    odd = [
        "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", 'ETag: "1"', "ETag: \xe4\x7f", 'ETag: "a\r\n b"',
        "Last-Modified: yesterday", "Location: /again", "Location: http://[", "Location: file:///etc/passwd",
        "Location: http://127.0.0.1:1/", "Retry-After: 1e999", "Retry-After: Mon, 01 Jan 0001 00:00:00 +9999",
        "Retry-After: 0", "Content-Encoding: gzip", "no colon", "X: " + "y" * 70_000, *["X: y"] * 3,
        f"Content-Range: bytes 0-{len(body) - 1}/{len(body)}", f"Content-Range: bytes 7-9/{'9' * 5000}",
        f"Content-Range: bytes 100-{len(body) - 1}/*", "\r\n".join(f"X{n}: y" for n in range(5000)),
    ]  # fmt: skip
    headers += random.sample(odd, random.choice([0, 0, 0, 0, 1, 2, 3]))
    random.shuffle(headers)
    return "\r\n".join([status, *headers, "", ""]).encode("latin-1")


def _chunked(random: Random, body: bytes) -> bytes:
    pieces = [body[start : start + 5000] for start in range(0, len(body), 5000)]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    if random.random() < 0.5:
        odd = [b"-1\r\n", b"ffffffffffffffff\r\n", b"g\r\n", b"\r\n", b"1" * 70_000, b"0\r\nX: y\r\n"]
        chunks.insert(random.randrange(len(chunks) + 1), random.choice(odd))
    return b"".join(chunks) + b"0\r\n\r\n"


def _damaged(random: Random, data: bytes) -> bytes:
    place, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return (
        data[:place] + random.choice([b"", b"\0", b"\xff\xfe", random.randbytes(20), data[place:end] * 2]) + data[end:]
    )


# --- what answers hold ------------------------------------------------------------------------------------------------

NESTED = b"[" * 100_000
ODD = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"NaN",
    b"1" * 5000,
    NESTED,
    b'{"a":' * 100_000,
    b"\xff\xfe{}",
    b"\0" * 100,
]


def _chat_body(random: Random) -> bytes:
    told = json.dumps({"summary": SUMMARY})
    contents = [
        told, told, f"{{ {{ {{ {told} }}", None, 7, [told], {"a": told}, "", " ", "{" * 200_000, '{"a":' * 50_000,
        '{"summary": 7}', "\ud800" + told, "\0" + told,
    ]  # fmt: skip
    content = random.choice(contents + [told] * 10)
    if content == "{" * 200_000 or content == '{"a":' * 50_000:
        content += random.choice(["", told])
    message = {"role": "assistant", "content": random.choice([told, content])}
    reason = random.choice([*["stop"] * 15, "length", "content_filter", None, 7, [[]]])
    choice = {"message": message, "finish_reason": reason}
    answers: list[Any] = [{"choices": [choice]}] * 20
    answers += [{"choices": [{**choice, "message": {**message, "refusal": random.choice(["no\n", [[]], 7])}}]}]
    answers += [
        {"choices": choice},
        {"choices": [message]},
        {"choices": [{"message": told}]},
        {"error": {"message": "x\ny"}},
    ]
    body = json.dumps(random.choice(answers)).encode()
    return random.choice([body, body, body, body.replace(b'"choices"', b'"a": ' + NESTED + b', "choices"'), *ODD[:2]])


def _vector_body(random: Random) -> bytes:
    right = [{"index": 1, "embedding": [3, 4e30]}, {"index": 0, "embedding": [0.5, -2.0]}]
    odd: list[Any] = [
        1e39, -1e39, float("nan"), float("inf"), 10**400, None, "1", True, [], {}, "AAAA", [1.0],
    ]  # fmt: skip
    value = random.choice(odd)
    answers: list[Any] = [
        *[right] * 30, right[:1], [right[0], right[0]], [], None, 7, "text", {"0": right[0]},
        [right[0], {"index": 0, "embedding": [0.5, value]}], [right[0], {"index": 0, "embedding": value}],
        [right[0], {"index": 0, "embedding": [0.5]}], [right[0], {"index": 0, "embedding": "12"}],
        [right[0], {"index": value, "embedding": [0.5, -2.0]}], [right[0], {"embedding": [0.5, -2.0]}],
        [{"index": 1, "embedding": []}, {"index": 0, "embedding": []}], [right[0], 7], [right[0], None],
    ]  # fmt: skip
    return random.choice([json.dumps({"data": random.choice(answers)}).encode()] * 9 + [random.choice(ODD)])
