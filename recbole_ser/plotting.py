"""Writing matplotlib figures to files whose bytes do not depend on the date; matplotlib is an optional dependency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.files import atomic_write

# Okabe and Ito's colours, which readers with any colour vision can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

# The formats that can be written, with the entries in which their writers would put the date.
FORMATS: Mapping[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


@contextmanager
def figure_in(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """An empty figure that is written to ``path`` when the block ends without an error.

    Args:
        path: path of the file, whose suffix gives the format.
        size: width and height in inches.

    Raises:
        ConfigError: no format has that suffix.
        UserError: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: the name of a plot must end in {', '.join(FORMATS)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('plots need matplotlib: pip install "recbole_ser[plot]"; the tables do not') from error
    figure = Figure(figsize=size, layout="constrained")
    yield figure
    with matplotlib.rc_context({"svg.hashsalt": "recbole_ser"}), atomic_write(path, "wb") as handle:
        figure.savefig(handle, format=path.suffix[1:], dpi=150, metadata=FORMATS[path.suffix])
