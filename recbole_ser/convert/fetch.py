"""Downloading raw files over HTTP: transfers are resumed and checked, and only complete files get their names."""

from __future__ import annotations

import gzip
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from recbole_ser.errors import ConfigError, DataError, UserError, one_line
from recbole_ser.files import check_writable, sha256, write_json
from recbole_ser.records import read_record
from recbole_ser.web import Allowance, Broken, open_url, read_some

CHECKSUMS = "checksums.json"
SAMPLE_COMMAND = "python run_recbole_ser.py --model=SESRec --dataset=ser-sample"

_ATTEMPTS = 4
_TIMEOUT = 20.0  # seconds without a byte
_PATIENCE = 60.0  # seconds for the header of an answer, and for each _LEAST bytes of its body
_LEAST = 1 << 16
_HEADER = 1 << 20  # bytes of headers, and of the pages that come with redirections
_LARGEST = 16 << 30  # bytes of a file whose length the server does not say
_BLOCK = 1 << 18
_VALIDATOR = re.compile(r"[ -~]{1,1000}")  # what a header can send back
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_log = logging.getLogger(__name__)
_wait = time.sleep


class FetchError(UserError):
    """A file could not be fetched."""


def fetch(url: str, path: Path, *, checksum: str | None = None) -> None:
    """Download ``url`` to ``path``.

    Bytes are collected in ``<path>.part``.  The next attempt, or a later call, goes on from there if the server still
    has the same file; only a complete file is renamed to ``path``.  Broken transfers are tried again after 1, 2 and 4
    seconds.  A transfer is broken, too, if fewer than 64 KiB arrive in a minute, or no whole header does.  A file whose
    length the server does not say may have 16 GiB.  A gzip file is unpacked to see whether it is whole, but only read
    and never kept, so that it may unpack to any size.

    Args:
        checksum: the SHA-256 that the file must have; ``None``: any.

    Raises:
        FetchError: the URL is not HTTP(S), the server refuses, every attempt broke off, the checksum differs, the file
            is too large, or a file named ``.gz`` is not a complete gzip file.
        UserError: the file cannot be written; what has arrived is kept.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"{url}: only http and https are fetched")
    check_writable(path)
    part = _Part(path)
    with _writing(part):
        path.parent.mkdir(parents=True, exist_ok=True)
        _attempt(url, part)
    problem = _fault(part.path, path.suffix == ".gz", checksum)
    if problem is None:
        part.path.replace(path)
    part.discard()
    if problem is not None:
        raise FetchError(f"{url}: {problem}")


def _attempt(url: str, part: _Part) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            return _transfer(url, part)
        except Broken as error:
            if attempt == _ATTEMPTS - 1:
                raise FetchError(f"{url}: {error}") from error
            _log.warning("%s: %s; trying again", url, error)
            _wait(2.0**attempt)


@contextmanager
def _writing(part: _Part) -> Iterator[None]:
    """Say where a file could not be written, as the disk is full, perhaps, and that what has arrived is not lost."""
    try:
        yield
    except OSError as error:
        remedy = "what has arrived is kept: mend this, and give the same command again"
        raise UserError(f"{part.path}: cannot be written: {error.strerror} ({remedy})") from error


def ensure_raw(raw: Mapping[str, Any], folder: Path) -> dict[str, list[Path]]:
    """Make sure that the raw files of a data set are in ``folder``: use those that are there, download the others.

    The SHA-256 of each file is written to ``checksums.json`` when the file is first used, and compared from then on.

    Args:
        raw: the block ``raw`` of a data set's YAML file: ``sources`` is a list of mappings with ``role``, ``base``
            (URL of a folder) and ``files`` (names in it).

    Returns:
        The files of each role.  Instead of a file named ``X.gz`` there may be an ``X``.

    Raises:
        ConfigError: ``raw`` does not have this form.
        DataError: a file has changed since its first use.
        UserError: files cannot be downloaded; the message says which, from where, and where to put them.
    """
    sources = _sources(raw)
    known = _read_checksums(folder)
    files: dict[str, list[Path]] = {}
    for role, url, name in sources:
        path = _present(folder, name)
        if path is None:
            path = folder / name
            try:
                fetch(url, path, checksum=known.get(name))
            except FetchError as error:
                raise UserError(_advice(error, sources, folder)) from error
        digest = sha256(path)
        if known.setdefault(path.name, digest) != digest:
            raise DataError(
                path, f"the file has changed since its first use: SHA-256 {digest}, not {known[path.name]}",
                hint=f"remove it to fetch it again, or remove its entry in {folder / CHECKSUMS} to use it as it is",
            )  # fmt: skip
        write_json(folder / CHECKSUMS, known)
        files.setdefault(role, []).append(path)
    return files


@dataclass(frozen=True)
class _Origin:
    """Which file the bytes of a part belong to: its ``url``, what identifies its version, and its size in bytes."""

    url: str
    validator: str | None
    size: int | None


class _Part:
    """The bytes of a file that have arrived, and a record of which file they belong to."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._origin_path = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def origin(self, url: str) -> _Origin:
        """The file that the bytes belong to; all but ``url`` unknown if it is another one, or the record is damaged."""
        try:
            origin = read_record(self._origin_path, _Origin, "")
        except DataError:  # then the file is fetched from its beginning
            return _Origin(url, None, None)
        fits = origin.url == url and (origin.validator is None or _VALIDATOR.fullmatch(origin.validator))
        return origin if fits else _Origin(url, None, None)

    def begin(self, origin: _Origin) -> None:
        self.path.unlink(missing_ok=True)
        write_json(self._origin_path, asdict(origin))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)


class _HTTPRedirect(urllib.request.HTTPRedirectHandler):
    """Follows redirections to HTTP(S) only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise FetchError(f"{req.full_url}: redirects to {one_line(newurl)}, which is not http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transfer(url: str, part: _Part) -> None:
    """Make one attempt: go on from what ``part`` holds, or start again if that is not possible.

    Raises:
        Broken: the transfer did not reach its end.
        FetchError: the server refuses, or there is no room.
        OSError: the bytes cannot be written.
    """
    origin = part.origin(url)
    held = part.size if origin.validator or origin.size else 0
    if held and held == origin.size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "recbole_ser"})
    if held:
        request.add_header("Range", f"bytes={held}-")
        if origin.validator:
            request.add_header("If-Range", origin.validator)
    allowance = Allowance(_PATIENCE, _HEADER, f"no whole header within {_PATIENCE:g} s")
    try:
        with open_url(request, allowance, _TIMEOUT, _HTTPRedirect) as response:
            if response.status == 206:
                size = _continued(response.headers.get("Content-Range", ""), held, origin.size, part)
                _refuse_without_room(url, part, held, size)
            elif response.status == 200:
                held, size = 0, response.length
                _refuse_without_room(url, part, held, size)
                part.begin(_Origin(url, _validator(response.headers), size))
            else:
                raise FetchError(f"{url}: the server answers {response.status} {one_line(response.reason)}")
            _receive(url, response, allowance, part, held, size)
    except urllib.error.HTTPError as error:
        error.close()
        problem = f"the server answers {error.code} {one_line(error.reason)}"
        if error.code == 416:
            part.discard()
        elif error.code not in _TRANSIENT:
            raise FetchError(f"{url}: {problem}") from error
        raise Broken(problem) from error
    if size is not None and part.size != size:
        raise Broken(f"{part.size:,} of {size:,} bytes arrived")


def _refuse_without_room(url: str, part: _Part, held: int, size: int | None) -> None:
    missing = (size or 0) - held
    free = shutil.disk_usage(part.path.parent).free
    if missing > free:
        raise FetchError(f"{url}: {missing:,} bytes are to come, but {part.path.parent} has room for {free:,} only")


def _receive(
    url: str, response: http.client.HTTPResponse, allowance: Allowance, part: _Part, held: int, size: int | None
) -> None:
    """Append the body of ``response`` to the ``held`` bytes of ``part``."""
    name, limit = part.path.name.removesuffix(".part"), _LARGEST if size is None else size
    awaited = held  # how many bytes are awaited before the allowance is renewed
    with (
        part.path.open("ab") as handle,
        tqdm(total=size, initial=held, desc=f"Fetching {name}", unit="B", unit_scale=True, disable=None) as bar,
    ):
        while True:
            if held >= awaited:
                awaited = held + _LEAST
                allowance.renew(_PATIENCE, limit + _HEADER, f"fewer than {_LEAST:,} bytes in {_PATIENCE:g} s")
            block = read_some(response, _BLOCK)
            if not block:
                break
            held += len(block)
            if held > limit:
                _refuse_excess(url, part, size)
            handle.write(block)
            bar.update(len(block))
        handle.flush()
        os.fsync(handle.fileno())


def _refuse_excess(url: str, part: _Part, size: int | None) -> None:
    part.discard()
    if size is not None:
        raise Broken(f"more than the {size:,} bytes of the file arrive")
    problem = f"more than {_LARGEST:,} bytes arrive, the most that is fetched of a file whose length the server hides"
    raise FetchError(f"{url}: {problem}")


def _continued(content_range: str, held: int, size: int | None, part: _Part) -> int | None:
    """The size of the whole file, from a partial answer; the bytes held are dropped if the answer does not fit them."""
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", content_range.strip())
    total = size if match is None or match[2] == "*" else int(match[2])
    if not held or match is None or int(match[1]) != held or (size is not None and total != size):
        part.discard()
        shown = one_line(content_range, 80)
        raise Broken(f"the server sends '{shown}', which does not go on from byte {held} of the same file")
    return total


def _fault(path: Path, is_gzip: bool, checksum: str | None) -> str | None:
    """What is wrong with a file that has arrived; ``None`` if nothing is."""
    if is_gzip:
        try:
            if not path.stat().st_size:
                raise EOFError("nothing arrived")
            with gzip.open(path) as handle:
                while handle.read(_BLOCK):
                    pass
        except (EOFError, zlib.error, OSError) as error:
            return f"what arrived is not a whole gzip file but perhaps an error page: {error}"
    if checksum is not None and sha256(path) != checksum:
        return (
            f"the file is not the one that was used before: its SHA-256 is not {checksum}; "
            f"if it was replaced on purpose, remove its entry in {CHECKSUMS}"
        )
    return None


def _validator(headers: Any) -> str | None:
    """What identifies this version of the file: a strong ETag, or else its time of modification."""
    etag = headers.get("ETag")
    found = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    return found if found and _VALIDATOR.fullmatch(found) else None


def _sources(raw: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(role, URL, name) of each file."""
    try:
        listed = [
            (str(source["role"]), urljoin(source["base"], name), name)
            for source in raw["sources"]
            for name in source["files"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        hint = "raw.sources is a list of mappings with role, base (URL of a folder) and files (names in it)"
        raise ConfigError(f"the block 'raw' of the data set's YAML file is not complete: {hint}") from error
    for _, _, name in listed:
        if not name or name != Path(name).name or "\\" in name or name.startswith(".") or name == CHECKSUMS:
            raise ConfigError(f"raw.sources: '{name}' is not the name of a file in the folder 'base'")
    return listed


def _present(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / name.removesuffix(".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read_checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    return read_record(path, dict[str, str], "remove it to record the checksums anew")


def _advice(error: FetchError, sources: list[tuple[str, str, str]], folder: Path) -> str:
    missing = [(url, name) for _, url, name in sources if _present(folder, name) is None]
    lines = [f"  {name}\n    from {url}" for url, name in missing]
    return "\n".join([
        f"cannot fetch {error}",
        f"Get these files and put them into {folder.resolve()}, then give the same command again:",
        *lines,
        f"To see the package at work without them: {SAMPLE_COMMAND}",
    ])  # fmt: skip
