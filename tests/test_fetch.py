from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile_server import HostileServer, at_once, dripping, endlessly, hostile_server

from recbole_ser.convert import fetch as fetch_module
from recbole_ser.convert.fetch import CHECKSUMS, SAMPLE_COMMAND, FetchError, ensure_raw, fetch
from recbole_ser.convert.prepare import ensure_dataset
from recbole_ser.errors import ConfigError, DataError, UserError

PROPERTIES = Path(__file__).parent.parent / "properties" / "dataset"
CONTENT = bytes(range(256)) * 4096  # 1 MiB
QUARTER = len(CONTENT) // 4


class Server:
    """A file server on this machine, with the faults that the test asks for.

    ``cuts`` gives, for each request in turn, after how many bytes of the body the connection breaks.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/file": CONTENT}
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.redirects: dict[str, str] = {}
        self.ranges = True
        self.etag: str | None = '"one"'
        self.content_length = True
        self.range_shift = 0
        self.pause = 0.0
        self.requests: list[tuple[str, str | None, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, name: str = "/file") -> str:
        return f"http://127.0.0.1:{self.http.server_port}{name}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        byte_range, validator = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.requests.append((handler.path, byte_range, validator))
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        if handler.path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[handler.path])
            handler.end_headers()
            return
        if handler.path not in self.files:
            handler.send_error(404)
            return
        body = self.files[handler.path]
        start = 0
        if byte_range and self.ranges and validator in (None, self.etag):
            start = int(byte_range.removeprefix("bytes=").removesuffix("-")) + self.range_shift
            if start >= len(body):
                handler.send_error(416)
                return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.content_length:
            handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        self.send(handler, body[start:])

    def send(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        cut = self.cuts.pop(0) if self.cuts else len(body)
        with contextlib.suppress(ConnectionError):
            for begin in range(0, cut, QUARTER):
                handler.wfile.write(body[begin : min(begin + QUARTER, cut)])
                handler.wfile.flush()
                time.sleep(self.pause)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch_module, "_wait", lambda seconds: None)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- one file ---------------------------------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_alone(server: Server, tmp_path: Path) -> None:
    fetch(server.url(), tmp_path / "new" / "file")
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert names_in(tmp_path / "new") == {"file"}


def test_a_broken_transfer_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [QUARTER, QUARTER]
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [
        ("/file", None, None),
        ("/file", f"bytes={QUARTER}-", '"one"'),
        ("/file", f"bytes={2 * QUARTER}-", '"one"'),
    ]


def test_a_transfer_that_always_breaks_fails_and_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000] * 4
    with pytest.raises(FetchError, match=r"4,000 of 1,048,576 bytes arrived"):
        fetch(server.url(), tmp_path / "file")
    assert len(server.requests) == 4
    assert names_in(tmp_path) == {"file.part", "file.part.json"}
    fetch(server.url(), tmp_path / "file")
    assert server.requests[4] == ("/file", "bytes=4000-", '"one"')
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert names_in(tmp_path) == {"file"}


def test_a_file_that_changed_in_between_starts_again(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000] * 4
    with pytest.raises(FetchError):
        fetch(server.url(), tmp_path / "file")
    server.etag, server.files["/file"] = '"two"', CONTENT[::-1]
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]


def test_without_an_etag_the_size_must_agree(server: Server, tmp_path: Path) -> None:
    server.etag, server.cuts = None, [QUARTER]
    fetch(server.url(), tmp_path / "file")
    assert server.requests[1] == ("/file", f"bytes={QUARTER}-", None)
    assert (tmp_path / "file").read_bytes() == CONTENT
    server.cuts, server.files["/other"] = [1000] * 4, CONTENT
    with pytest.raises(FetchError):
        fetch(server.url("/other"), tmp_path / "other")
    server.files["/other"] = CONTENT[::-1] + b"longer"
    fetch(server.url("/other"), tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == CONTENT[::-1] + b"longer"


def test_a_part_of_another_url_is_not_gone_on_from(server: Server, tmp_path: Path) -> None:
    server.cuts, server.files["/other"] = [1000] * 4, CONTENT[::-1]
    with pytest.raises(FetchError):
        fetch(server.url("/other"), tmp_path / "file")
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [QUARTER]
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_answer_from_the_wrong_byte_is_dropped(server: Server, tmp_path: Path) -> None:
    server.range_shift, server.cuts = 5, [QUARTER]
    fetch(server.url(), tmp_path / "file")
    assert [request[1] for request in server.requests] == [None, f"bytes={QUARTER}-", None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000] * 4
    with pytest.raises(FetchError):
        fetch(server.url(), tmp_path / "file")
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_of_unknown_length_arrives(server: Server, tmp_path: Path) -> None:
    server.content_length = False
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_the_server_refuses_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"/nothing: the server answers 404"):
        fetch(server.url("/nothing"), tmp_path / "file")
    assert len(server.requests) == 1
    assert names_in(tmp_path) == set()


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    server.statuses = [500] * 9
    with pytest.raises(FetchError, match="500"):
        fetch(server.url(), tmp_path / "again")
    assert len(server.statuses) == 5


def test_the_checksum_is_compared(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(server.url(), tmp_path / "file", checksum="0" * 64)
    assert names_in(tmp_path) == set()
    fetch(server.url(), tmp_path / "file", checksum=hashlib.sha256(CONTENT).hexdigest())
    assert names_in(tmp_path) == {"file"}


def test_only_http_is_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    server.redirects = {
        "/good": "/file",
        "/bad": f"file://{tmp_path}/secret",
        "/ftp": "ftp://127.0.0.1/file",
        "/loop": "/loop",
    }
    fetch(server.url("/good"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    for url in (f"file://{tmp_path}/secret", server.url("/bad"), server.url("/loop"), "no url"):
        with pytest.raises(FetchError):
            fetch(url, tmp_path / "other")
    with pytest.raises(FetchError, match="redirects to ftp"):
        fetch(server.url("/ftp"), tmp_path / "other")
    assert names_in(tmp_path) == {"secret", "file"}


def test_a_killed_transfer_leaves_only_the_part(server: Server, tmp_path: Path) -> None:
    server.pause = 0.5
    code = (
        f"from recbole_ser.convert.fetch import Path, fetch; fetch({server.url()!r}, Path({str(tmp_path / 'file')!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    part = tmp_path / "file.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert names_in(tmp_path) == {"file.part", "file.part.json"}
    server.pause = 0
    fetch(server.url(), tmp_path / "file")
    assert server.requests[1][1] is not None
    assert (tmp_path / "file").read_bytes() == CONTENT


# --- hostile servers, full disks --------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = OK + b'ETag: "one"\r\nContent-Length: 1048576\r\n\r\n' + CONTENT


@pytest.fixture
def hostile(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileServer]:
    monkeypatch.setattr(fetch_module, "_PATIENCE", 0.15)
    monkeypatch.setattr(fetch_module, "_LARGEST", 2 << 20)
    with hostile_server() as hostile:
        yield hostile


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (lambda server: dripping(server, WHOLE[:1000], b"a", 0.02), "fewer than 65,536 bytes in 0.15 s"),
        (lambda server: dripping(server, OK, b"a", 0.02), "no whole header within 0.15 s"),
        (lambda server: dripping(server, b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02), "no whole header"),
        (lambda server: endlessly(server, b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "more than 1,048,576 bytes|header"),
        (lambda server: endlessly(server, OK + b"\r\n", b"a"), "more than 2,097,152 bytes arrive, the most that"),
        (lambda server: endlessly(server, CHUNKED + b"-1\r\n", b"a"), "more than 2,097,152"),
        (lambda server: endlessly(server, b"HTTP/1.1 302 No\r\nLocation: /x\r\n\r\n", b"a"), "more than 1,048,576"),
        (lambda server: at_once(b"HTTP/1.1 302 No\r\nLocation: http://[\r\n\r\n"), "Invalid IPv6 URL"),
        (lambda server: at_once(OK + b"X: y\r\n" * 5000 + b"\r\n"), "more than 100 headers"),
        (lambda server: at_once(b"HTTP/1.1 204 None\r\n\r\n"), "the server answers 204 None"),
        (lambda server: at_once(b"HTTP/1.1 206 Part\r\nContent-Range: bytes 7-9/9" + b"9" * 5000 + b"\r\n\r\n"), "go"),
        (lambda server: at_once(b"\0\x1b[2J\r\n\r\n"), "no HTTP"),
    ],
    ids=["dripped body", "dripped header", "dripped interim answers", "endless interim answers", "endless body",
         "chunk below 0", "endless redirection", "no address", "headers", "no content", "digits", "no HTTP"],
)  # fmt: skip
def test_no_answer_takes_for_ever_or_all_room(hostile: HostileServer, play: Any, words: str, tmp_path: Path) -> None:
    hostile.play = play(hostile)
    begin, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FetchError, match=words) as caught:
        fetch(f"{hostile.url}/file", tmp_path / "file")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    assert time.monotonic() - begin < 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 << 10, "64 MiB, in KiB"
    hostile.play = at_once(WHOLE)
    fetch(f"{hostile.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert names_in(tmp_path) == {"file"}


def test_a_slow_transfer_is_no_broken_one(
    hostile: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "_PATIENCE", 0.5)

    def play(connection: Any, header: bytes) -> None:
        for start in range(0, len(WHOLE), 1 << 17):
            connection.sendall(WHOLE[start : start + (1 << 17)])
            time.sleep(0.1)

    hostile.play = play
    fetch(f"{hostile.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(hostile.requests) == 1


@pytest.mark.parametrize("length", ["-1", "9" * 5000, "many", "1_0", f"{len(CONTENT)}, {len(CONTENT)}", "\u00b2"])
def test_a_length_that_is_none_is_an_unknown_length(hostile: HostileServer, tmp_path: Path, length: str) -> None:
    body = CONTENT[:10] if length == "1_0" else CONTENT
    hostile.play = at_once(OK + f"Content-Length: {length}\r\n\r\n".encode("latin-1") + body)
    fetch(f"{hostile.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == body


@pytest.mark.parametrize(
    "record",
    [
        "[" * 100_000, '{"url": 7}', "\ud800", '{"url": URL, "validator": "a\\nX: y", "size": 1048576}',
        '{"url": URL, "validator": null, "size": "big"}', '{"url": URL, "validator": null, "size": 1e999}',
    ],
)  # fmt: skip
def test_a_damaged_record_of_a_part_costs_only_the_part(server: Server, tmp_path: Path, record: str) -> None:
    text = record.replace("URL", json.dumps(server.url()))
    (tmp_path / "file.part.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert names_in(tmp_path) == {"file"}


def test_without_room_nothing_is_begun(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(FetchError, match=r"1,048,576 bytes are to come, but .* has room for 1,000 only"):
        fetch(server.url(), tmp_path / "file")
    assert names_in(tmp_path) == set() and len(server.requests) == 1


def test_a_full_disk_is_one_line_and_the_transfer_goes_on_later(server: Server, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * QUARTER, hard))
    try:
        with pytest.raises(UserError, match=r"file\.part: cannot be written: .* \(what has arrived is kept") as caught:
            fetch(server.url(), tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and not isinstance(caught.value, FetchError) and len(server.requests) == 1
    fetch(server.url(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[1][1] == f"bytes={3 * QUARTER}-"


def test_a_place_that_cannot_be_written_is_found_out_first(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "text").write_text("")
    for path in (tmp_path / "file", tmp_path / "text" / "file", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot be written"):
            fetch(server.url(), path)
    assert server.requests == [] and names_in(tmp_path) == {"file", "text"}


@pytest.mark.parametrize("text", ["[" * 100_000, "7", '{"train.qrels.gz": 7}', "\0"])
def test_damaged_checksums_are_one_line(server: Server, tmp_path: Path, text: str) -> None:
    (tmp_path / CHECKSUMS).write_text(text)
    with pytest.raises(DataError, match=r"checksums\.json: damaged: .* \(remove it to record the checksums anew\)"):
        ensure_raw(raw_block(server), tmp_path)


# --- the files of a data set ------------------------------------------------------------------------------------------

REVIEWS = '{"reviewerID": "U1", "asin": "A", "unixReviewTime": 7}\n'
RAW_FILES = {
    "/r/reviews.json.gz": gzip.compress(REVIEWS.encode(), mtime=0),
    "/q/query_text.txt.gz": gzip.compress(b"some words\n", mtime=0),
    "/q/train.qrels.gz": gzip.compress(b"U1_0 0 A 1\n", mtime=0),
    "/q/test.qrels.gz": gzip.compress(b"", mtime=0),
}


def raw_block(server: Server) -> dict[str, Any]:
    server.files |= RAW_FILES
    return {
        "sources": [
            {"role": "reviews", "base": server.url("/r/"), "files": ["reviews.json.gz"]},
            {"role": "queries", "base": server.url("/q/"),
             "files": ["query_text.txt.gz", "train.qrels.gz", "test.qrels.gz"]},
        ],
        "convert": {"converter": "amazon", "recipe": "sesrec"},
    }  # fmt: skip


def test_raw_files_are_fetched_once_and_their_checksums_kept(server: Server, tmp_path: Path) -> None:
    files = ensure_raw(raw_block(server), tmp_path)
    assert files == {
        "reviews": [tmp_path / "reviews.json.gz"],
        "queries": [tmp_path / name for name in ("query_text.txt.gz", "train.qrels.gz", "test.qrels.gz")],
    }
    assert json.loads((tmp_path / CHECKSUMS).read_text()) == {
        Path(name).name: hashlib.sha256(data).hexdigest() for name, data in RAW_FILES.items()
    }
    assert ensure_raw(raw_block(server), tmp_path) == files
    assert len(server.requests) == 4


def test_raw_files_that_are_there_are_used_as_they_are(server: Server, tmp_path: Path) -> None:
    (tmp_path / "reviews.json").write_text(REVIEWS)
    (tmp_path / "train.qrels.gz").write_bytes(b"mine")
    files = ensure_raw(raw_block(server), tmp_path)
    assert files["reviews"] == [tmp_path / "reviews.json"]
    assert (tmp_path / "train.qrels.gz").read_bytes() == b"mine"
    assert {request[0] for request in server.requests} == {"/q/query_text.txt.gz", "/q/test.qrels.gz"}


def test_a_raw_file_that_changed_is_refused(server: Server, tmp_path: Path) -> None:
    ensure_raw(raw_block(server), tmp_path)
    (tmp_path / "train.qrels.gz").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"train\.qrels\.gz: the file has changed since its first use"):
        ensure_raw(raw_block(server), tmp_path)
    (tmp_path / "train.qrels.gz").unlink()
    raw = raw_block(server)
    server.files["/q/train.qrels.gz"] = gzip.compress(b"changed there")
    with pytest.raises(UserError, match="not the one that was used before"):
        ensure_raw(raw, tmp_path)
    assert not (tmp_path / "train.qrels.gz").exists()


def test_a_page_in_place_of_a_gzip_file_is_refused(server: Server, tmp_path: Path) -> None:
    raw = raw_block(server)
    for data in (b"<html>Please log in</html>", b"", RAW_FILES["/r/reviews.json.gz"][:-5]):
        server.files["/r/reviews.json.gz"] = data
        with pytest.raises(UserError, match="not a whole gzip file"):
            ensure_raw(raw, tmp_path)
        assert names_in(tmp_path) == set()


def test_offline_it_says_what_to_get_and_where_to_put_it(server: Server, tmp_path: Path) -> None:
    raw = raw_block(server)
    (tmp_path / "test.qrels.gz").write_bytes(RAW_FILES["/q/test.qrels.gz"])
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError) as error:
        ensure_raw(raw, tmp_path)
    message = str(error.value)
    for url in ("/r/reviews.json.gz", "/q/query_text.txt.gz", "/q/train.qrels.gz"):
        assert server.url(url) in message
    assert "test.qrels.gz" not in message
    assert str(tmp_path) in message
    assert SAMPLE_COMMAND in message


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "..", CHECKSUMS, "a\\b", 3])
def test_names_that_are_no_names_are_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ConfigError, match="raw"):
        ensure_raw({"sources": [{"role": "reviews", "base": "http://127.0.0.1/", "files": [name]}]}, tmp_path)


@pytest.mark.parametrize("raw", [{}, {"sources": [3]}, {"sources": [{"role": "reviews"}]}, {"sources": None}])
def test_an_incomplete_block_is_refused(tmp_path: Path, raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"raw\.sources is a list"):
        ensure_raw(raw, tmp_path)


# --- from a name to atomic files --------------------------------------------------------------------------------------


def test_a_data_set_is_fetched_and_converted_once(server: Server, tmp_path: Path) -> None:
    config = {"raw": raw_block(server)}
    ensure_dataset(tmp_path / "X", config)
    assert (tmp_path / "X" / "X.search").read_text().splitlines()[1:] == ["U1\t0\t7\tA"]
    server.files.clear()
    (tmp_path / "X" / "raw" / "train.qrels.gz").unlink()
    ensure_dataset(tmp_path / "X", config)
    assert len(server.requests) == 4


def test_an_interrupted_preparation_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    config = {"raw": raw_block(server)}
    train = server.files.pop("/q/train.qrels.gz")
    with pytest.raises(UserError, match="404"):
        ensure_dataset(tmp_path / "X", config)
    assert not (tmp_path / "X" / "X.inter").exists()
    (tmp_path / "X" / ".partial-of-a-killed-one").mkdir()
    server.files["/q/train.qrels.gz"] = train
    ensure_dataset(tmp_path / "X", config)
    assert names_in(tmp_path / "X") == {
        "X.inter",
        "X.search",
        "X.query",
        "manifest.json",
        "raw",
        ".lock",
        ".converting",
    }
    assert len(server.requests) == 5


def test_a_second_process_waits_for_the_first(server: Server, tmp_path: Path) -> None:
    config = {"raw": raw_block(server)}
    server.pause = 0.05
    threads = [threading.Thread(target=ensure_dataset, args=(tmp_path / "X", config)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 4
    assert (tmp_path / "X" / "X.inter").exists()


def test_files_of_ones_own_are_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "X").mkdir()
    (tmp_path / "X" / "X.inter").write_text("mine")
    ensure_dataset(tmp_path / "X", {"raw": raw_block(server)})
    ensure_dataset(tmp_path / "X", {})
    assert (tmp_path / "X" / "X.inter").read_text() == "mine"
    assert server.requests == []


def test_a_conversion_with_other_options_is_not_taken(server: Server, tmp_path: Path) -> None:
    raw = raw_block(server)
    ensure_dataset(tmp_path / "X", {"raw": raw})
    raw["convert"]["recipe"] = "gserec"
    with pytest.raises(ConfigError, match="recipe 'sesrec', not 'gserec'"):
        ensure_dataset(tmp_path / "X", {"raw": raw})
    (tmp_path / "X" / "X.inter").unlink()
    ensure_dataset(tmp_path / "X", {"raw": raw})
    assert json.loads((tmp_path / "X" / "manifest.json").read_text())["options"]["recipe"] == "gserec"


@pytest.mark.parametrize(
    "change",
    [
        {"converter": "os"},
        {"converter": None},
        {"recipe": "both"},
        {"recipes": "sesrec"},
    ],
)
def test_a_wrong_conversion_is_refused(server: Server, tmp_path: Path, change: dict[str, Any]) -> None:
    raw = raw_block(server)
    raw["convert"] |= change
    with pytest.raises(ConfigError):
        ensure_dataset(tmp_path / "X", {"raw": raw})


def test_roles_that_the_converter_does_not_know_are_refused(server: Server, tmp_path: Path) -> None:
    raw = raw_block(server)
    raw["sources"][0]["role"] = "review"
    with pytest.raises(ConfigError, match=r"raw\.sources"):
        ensure_dataset(tmp_path / "X", {"raw": raw})


def test_an_unknown_data_set_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data set 'X'.*ser-sample"):
        ensure_dataset(tmp_path / "X", {})
    assert names_in(tmp_path) == set()


# --- the data sets that come with the package -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "category", "recipe", "lengths", "width", "metadata"),
    [
        ("kindle", "Kindle_Store", "sesrec", 15, 32, False),
        ("cell", "Cell_Phones_and_Accessories", "sesrec", 15, 32, False),
        ("cds", "CDs_and_Vinyl", "gserec", 20, 64, True),
        ("electronics", "Electronics", "gserec", 10, 64, True),
    ],
)
def test_packaged_data_sets(
    tmp_path: Path, name: str, category: str, recipe: str, lengths: int, width: int, metadata: bool
) -> None:
    values = yaml.safe_load((PROPERTIES / f"{name}.yaml").read_text())
    assert values["MAX_ITEM_LIST_LENGTH"] == values["max_search_length"] == lengths
    assert values["embedding_size"] == values["hidden_size"] == width
    assert values["max_clicks_per_search"] == 1
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    reviews = f"reviews_{category}_5.json.gz"
    base = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
    assert values["raw"]["sources"][0] == {"role": "reviews", "base": base, "files": [reviews]}
    assert all(re.fullmatch(r"https?://\S+/", source["base"]) for source in values["raw"]["sources"])
    for path, data in RAW_FILES.items():
        (raw / (reviews if "reviews" in path else Path(path).name)).write_bytes(data)
    if metadata:
        (raw / f"meta_{category}.json.gz").write_bytes(gzip.compress(b"{'asin': 'A', 'title': 'one'}\n"))
    ensure_dataset(tmp_path / name, values)
    manifest = json.loads((tmp_path / name / "manifest.json").read_text())
    assert manifest["options"]["recipe"] == recipe
    assert manifest["sizes"]["search_events"] == 1
    assert (tmp_path / name / f"{name}.item").exists() == metadata


def test_real_logs_are_prepared_from_their_folder(real_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "cell" / "raw"
    raw.mkdir(parents=True)
    for path in (real_data / "amazon_cell").iterdir():
        (raw / path.name).symlink_to(path)
    ensure_dataset(tmp_path / "cell", yaml.safe_load((PROPERTIES / "cell.yaml").read_text()))
    assert json.loads((tmp_path / "cell" / "manifest.json").read_text())["sizes"]["search_events"] == 194_434
