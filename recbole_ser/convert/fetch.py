"""Downloading raw files over HTTP: transfers are resumed and checked, and only complete files get their names."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.files import sha256, write_json

CHECKSUMS = "checksums.json"
SAMPLE_COMMAND = "python run_recbole_ser.py --model=SESRec --dataset=ser-sample"

_ATTEMPTS = 4
_TIMEOUT = 20.0  # seconds without a byte
_BLOCK = 1 << 18
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_log = logging.getLogger(__name__)
_wait = time.sleep


class FetchError(UserError):
    """A file could not be fetched."""


class _Broken(Exception):
    """One attempt failed, but another may succeed."""


def fetch(url: str, path: Path, *, checksum: str | None = None) -> None:
    """Download ``url`` to ``path``.

    Bytes are collected in ``<path>.part``.  The next attempt, or a later call, goes on from there if the server still
    has the same file; only a complete file is renamed to ``path``.  Broken transfers are tried again after 1, 2 and 4
    seconds.

    Args:
        checksum: the SHA-256 that the file must have; ``None``: any.

    Raises:
        FetchError: the URL is not HTTP(S), the server refuses, every attempt broke off, the checksum differs, or a
            file named ``.gz`` is not a complete gzip file.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"{url}: only http and https are fetched")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(path)
    for attempt in range(_ATTEMPTS):
        try:
            _transfer(url, part)
            break
        except _Broken as error:
            if attempt == _ATTEMPTS - 1:
                raise FetchError(f"{url}: {error}") from error
            _log.warning("%s: %s; trying again", url, error)
            _wait(2.0**attempt)
    problem = _fault(part.path, path.suffix == ".gz", checksum)
    if problem is None:
        part.path.replace(path)
    part.discard()
    if problem is not None:
        raise FetchError(f"{url}: {problem}")


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


class _Part:
    """The bytes of a file that have arrived, and a record of which file they belong to."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._origin_path = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def origin(self, url: str) -> dict[str, Any]:
        """The ``validator`` and ``size`` of the file that the bytes belong to; empty if unknown or not from ``url``."""
        try:
            origin = json.loads(self._origin_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return origin if isinstance(origin, dict) and origin.get("url") == url else {}

    def begin(self, url: str, validator: str | None, size: int | None) -> None:
        self.path.unlink(missing_ok=True)
        write_json(self._origin_path, {"url": url, "validator": validator, "size": size})

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)


class _HTTPRedirect(urllib.request.HTTPRedirectHandler):
    """Follows redirections to HTTP(S) only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise FetchError(f"{req.full_url}: redirects to {newurl}, which is not http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transfer(url: str, part: _Part) -> None:
    """Make one attempt: go on from what ``part`` holds, or start again if that is not possible.

    Raises:
        _Broken: the transfer did not reach its end.
        FetchError: the server refuses.
    """
    origin = part.origin(url)
    validator, size = origin.get("validator"), origin.get("size")
    held = part.size if validator or size else 0
    if held and held == size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "recbole_ser"})
    if held:
        request.add_header("Range", f"bytes={held}-")
        if validator:
            request.add_header("If-Range", validator)
    opener = urllib.request.build_opener(_HTTPRedirect)
    try:
        with opener.open(request, timeout=_TIMEOUT) as response:
            if response.status == 206:
                size = _continued(response.headers.get("Content-Range", ""), held, size, part)
            else:
                length = response.headers.get("Content-Length", "")
                held, size = 0, int(length) if length.isdecimal() else None
                part.begin(url, _validator(response.headers), size)
            _receive(response, part, held, size)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.discard()
        elif error.code not in _TRANSIENT:
            raise FetchError(f"{url}: the server answers {error.code} {error.reason}") from error
        raise _Broken(f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(getattr(error, "reason", error)) or type(error).__name__) from error
    if size is not None and part.size != size:
        raise _Broken(f"{part.size:,} of {size:,} bytes arrived")


def _receive(response: http.client.HTTPResponse, part: _Part, held: int, size: int | None) -> None:
    """Append the body of ``response`` to the ``held`` bytes of ``part``."""
    name = part.path.name.removesuffix(".part")
    with (
        part.path.open("ab") as handle,
        tqdm(total=size, initial=held, desc=f"Fetching {name}", unit="B", unit_scale=True, disable=None) as bar,
    ):
        while block := response.read(_BLOCK):
            handle.write(block)
            bar.update(len(block))
        handle.flush()
        os.fsync(handle.fileno())


def _continued(content_range: str, held: int, size: int | None, part: _Part) -> int | None:
    """The size of the whole file, from a partial answer; the bytes held are dropped if the answer does not fit them."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range.strip())
    total = size if match is None or match[2] == "*" else int(match[2])
    if not held or match is None or int(match[1]) != held or (size is not None and total != size):
        part.discard()
        raise _Broken(f"the server sends '{content_range}', which does not go on from byte {held} of the same file")
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
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


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
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(path, f"not valid JSON: {error}", hint="remove it to record the checksums anew") from error
    if not isinstance(known, dict):
        raise DataError(path, "not a mapping of names to SHA-256", hint="remove it to record the checksums anew")
    return known


def _advice(error: FetchError, sources: list[tuple[str, str, str]], folder: Path) -> str:
    missing = [(url, name) for _, url, name in sources if _present(folder, name) is None]
    lines = [f"  {name}\n    from {url}" for url, name in missing]
    return "\n".join([
        f"cannot fetch {error}",
        f"Get these files and put them into {folder.resolve()}, then give the same command again:",
        *lines,
        f"To see the package at work without them: {SAMPLE_COMMAND}",
    ])  # fmt: skip
