"""What all converters share: they count rows as they read them, publish all files together, and write a manifest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from recbole_ser import __version__
from recbole_ser.atomic import publishing
from recbole_ser.atomic.publishing import MANIFEST
from recbole_ser.atomic.schema import SEPARATOR, Column
from recbole_ser.convert.raw_lines import BadRow, RowCounts, read_lines
from recbole_ser.errors import DataError, UserError
from recbole_ser.files import atomic_write, remove_leftovers, sha256, write_json

STAGING_PREFIX = ".partial-"

OnError = Literal["stop", "skip"]
Parsed = TypeVar("Parsed")


class Conversion:
    """One conversion of raw files into the atomic files of a data set, which is named after its folder.

    Files are written into a hidden folder, and `publish` makes them the data set together, see `publishing`: killed at
    any moment, the folder holds the files of the earlier conversion or of this one.  Leaving the block without
    `publish` changes nothing.  Files with other names than those of atomic files are never touched.

    Args:
        out: folder of the data set.
        on_error: what to do at a malformed row: ``stop`` the conversion, or ``skip`` the row and count it.

    Attributes:
        warnings: lines about what is read as written although it is seldom meant; they go into the manifest.
    """

    def __init__(self, out: str | Path, on_error: OnError = "stop") -> None:
        if not str(out):
            raise UserError("the folder of the new data set has no name: is a variable of the shell empty?")
        self.folder = Path(os.path.realpath(out))
        self.name = self.folder.name
        self.on_error = on_error
        self._counts: list[RowCounts] = []
        self._inputs: list[Path] = []
        self.warnings: list[str] = []

    def __enter__(self) -> Conversion:
        """Lock the folder of the data set, clear away what killed conversions left there, and begin.

        Raises:
            UserError: files cannot be written there, or another process is converting into it.
            DataError: something stands there that a conversion must not replace.
        """
        if not self.name.isprintable() or not self.name:
            raise UserError(f"{str(self.folder)!r}: a data set cannot have the name of this folder")
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise UserError(f"{self.folder} is not a folder: a data set needs one of its own")
        with ExitStack() as stack:
            stack.enter_context(_named_errors(self.folder))
            self.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(publishing.locked(self.folder))
            publishing.finish(self.folder)
            publishing.check_places(self.folder)
            for leftover in self.folder.glob(f"{STAGING_PREFIX}*"):
                shutil.rmtree(leftover)
            remove_leftovers(self.folder, f"{self.name}.")
            self.staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self.folder))
            stack.callback(shutil.rmtree, self.staging, ignore_errors=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def count(self, source: str) -> RowCounts:
        """Make counts for the rows of ``source``; at the end they are checked and written into the manifest."""
        self._counts.append(RowCounts(source))
        return self._counts[-1]

    def read(self, path: Path, parse: Callable[[bytes], Parsed], counts: RowCounts) -> Iterator[tuple[int, Parsed]]:
        """Yield (1-based line number, ``parse(line)``) for each well-formed line of a raw file.

        ``parse`` raises `BadRow` at a malformed line.  Lines are counted in ``counts.rows_in``.

        Raises:
            DataError: a line is malformed and ``on_error`` is ``stop``, or the file is damaged.
            UserError: the file cannot be read.
        """
        self._inputs.append(path)
        for number, line in read_lines(path):
            counts.rows_in += 1
            try:
                row = parse(line)
            except BadRow as error:
                if self.on_error == "stop":
                    hint = "correct the file, or leave such rows out: recbole-ser convert ... --on-error skip"
                    raise DataError(path, str(error), line=number, hint=hint) from error
                counts.reject_malformed(path, number, error)
                continue
            yield number, row

    def write(self, suffix: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """Write ``X.<suffix>``: a header of ``columns``, then ``rows``, each with one text per column."""
        with atomic_write(self.staging / f"{self.name}.{suffix}") as handle:
            handle.write(SEPARATOR.join(column.label for column in columns) + "\n")
            handle.writelines(SEPARATOR.join(row) + "\n" for row in rows)

    def publish(self, converter: str, options: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
        """Write the manifest and move all files into place.

        Args:
            converter: name of the converter.
            options: everything besides the raw files that decides the output.
            sizes: numbers of users, items and so on in the data set, by name.

        Returns:
            The manifest.  It holds no time and no folder, so equal conversions have equal manifests.
        """
        outputs = sorted(self.staging.iterdir(), key=lambda path: (path.suffix == ".inter", path.name))
        manifest = {
            "dataset": self.name,
            "converter": converter,
            "package_version": __version__,
            "options": dict(options),
            "sizes": dict(sizes),
            "rows": {counts.source: counts.as_dict() for counts in self._counts},
            "inputs": [_describe(path) for path in self._inputs],
            "outputs": [_describe(path) for path in outputs],
            **({"warnings": self.warnings} if self.warnings else {}),
        }
        write_json(self.staging / MANIFEST, manifest)
        publishing.publish(self.staging, self.folder)
        return manifest


def format_manifest(manifest: Mapping[str, Any]) -> str:
    """A table of the rows in, rows out and rejected rows (by reason) of each source, then sizes and warnings."""
    lines = [f"{'source':<52}{'rows in':>12}{'rows out':>12}{'rejected':>12}"]
    for source, counts in manifest["rows"].items():
        rejected = sum(counts["rejected"].values())
        lines.append(f"{source:<52}{counts['in']:>12,}{counts['out']:>12,}{rejected:>12,}")
        for reason, number in counts["rejected"].items():
            lines.append(f"    {reason:<72}{number:>12,}")
            lines += [f"        {example}" for example in counts.get("examples", {}).get(reason, [])]
    sizes = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in manifest["sizes"].items())
    warnings = [f"warning: {warning}" for warning in manifest.get("warnings", ())]
    return "\n".join([*lines, f"{manifest['dataset']}: {sizes}", *warnings])


def _describe(path: Path) -> dict[str, Any]:
    name = path.name.encode(errors="backslashreplace").decode()  # that of an input may be no UTF-8
    return {"file": name, "bytes": path.stat().st_size, "sha256": sha256(path)}


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system into one line that names the file that it concerns."""
    try:
        yield
    except OSError as error:
        where, problem = error.filename or folder, error.strerror or error
        raise UserError(f"{where}: {problem}: the data set cannot be written into {folder}") from error
