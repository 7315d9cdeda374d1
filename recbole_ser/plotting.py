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


# The look of a paper's column: small type that stays readable at its own size, and more dots for print.
PAPER: Mapping[str, Any] = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "hatch.linewidth": 0.6, "savefig.dpi": 300,
}  # fmt: skip

# Outlines of letters that journals accept (Type 42, not Type 3), and identifiers that do not change.
_ALWAYS: Mapping[str, Any] = {"pdf.fonttype": 42, "svg.hashsalt": "recbole_ser", "savefig.dpi": 150}


@contextmanager
def figure_in(*paths: Path, size: tuple[float, float], style: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """An empty figure that is written to each of ``paths`` when the block ends without an error.

    Args:
        paths: paths of the files, whose suffixes give the formats.
        size: width and height in inches.
        style: settings of matplotlib that hold inside the block; ``None``: its own.

    Raises:
        ConfigError: no format has that suffix.
        UserError: matplotlib is not installed.
    """
    for path in paths:
        if path.suffix not in FORMATS:
            raise ConfigError(f"{path}: the name of a plot must end in {', '.join(FORMATS)}")
    matplotlib = need_matplotlib()
    with matplotlib.rc_context({**_ALWAYS, **(style or {})}):
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        yield figure
        for path in paths:
            with atomic_write(path, "wb") as handle:
                figure.savefig(handle, format=path.suffix[1:], metadata=FORMATS[path.suffix])


def legend_above(figure: Any, columns: int) -> None:
    """One legend above all axes of ``figure``, in which a label that several axes have is shown once."""
    found = [pair for axes in figure.axes for pair in zip(*reversed(axes.get_legend_handles_labels()))]
    entries = dict(reversed(found))  # of equal labels, the first
    order = list(dict.fromkeys(label for label, _ in found))
    figure.legend([entries[label] for label in order], order, loc="outside upper center", ncols=columns, frameon=False)


def need_matplotlib() -> Any:
    """The module matplotlib, with its ``figure``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise UserError('plots need matplotlib: pip install "recbole_ser[plot]"; the tables do not') from error
    return matplotlib
