"""The comparison as tables for a paper, a terminal or another program."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:  # what they hold takes seconds to import
    from recbole_ser.comparison.report import Comparison, Difference, GroupDifference, Model


_WIDTH = 100  # of a caption in the terminal


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and how it is marked: best, second best, significantly better than the second best."""

    text: str
    best: bool = False
    second: bool = False
    star: bool = False


@dataclass(frozen=True)
class Table:
    """A table that a person reads: what it shows, its columns, its rows, and rows below a rule at its end."""

    caption: str
    header: list[str]
    rows: list[list[Cell]]
    last: list[list[Cell]]


# --- what the tables say ----------------------------------------------------------------------------------------------


def tables_of(comparison: Comparison) -> list[Table]:
    """The metrics of all models; where there are several, how they differ; each trait's groups; other metrics."""
    tables = [_metrics(comparison)]
    if len(comparison.models) > 1:
        tables.append(_differences(comparison))
    tables += [_groups(comparison, by) for by in dict.fromkeys(row.by for row in comparison.groups)]
    return [*tables, _beyond(comparison)] if comparison.beyond else tables


def _metrics(comparison: Comparison) -> Table:
    rows = [
        [Cell(model.name), *(_value(comparison, model, metric) for metric in comparison.metrics)]
        for model in comparison.models
    ]
    improvements = [_percent(_over_best_other(comparison, metric)) for metric in comparison.metrics]
    last = [[Cell("Improvement (%)"), *map(Cell, improvements)]] if len(rows) > 1 else []
    return Table(_caption(comparison), ["Model", *comparison.metrics.values()], rows, last)


def _caption(comparison: Comparison) -> str:
    seeds = sorted({len(model.seeds) for model in comparison.models})
    several = "-".join(map(str, sorted({seeds[0], seeds[-1]})))
    users = f"{comparison.users:,} users"
    if comparison.test_targets > comparison.users:
        users += f" with {comparison.test_targets:,} test targets"
    parts = [f"{comparison.dataset}, {comparison.protocol}: {users}"]
    if seeds[-1] > 1:
        parts[0] += f"; mean ± standard deviation over {several} seeds"
    if len(comparison.models) > 1:
        parts += [
            "The best value is bold and the second best underlined",
            f"* marks a significant improvement over the second best ({_test(comparison)} < {comparison.alpha:g})",
            f"Improvement is that of {comparison.proposed} over the best other model",
        ]
    return ". ".join(parts) + "."


def _test(comparison: Comparison) -> str:
    corrected = "p with Holm's correction" if len(comparison.models) > 2 else "p"
    return f"{comparison.test} over users, {corrected}"


def _value(comparison: Comparison, model: Model, metric: str) -> Cell:
    means = sorted({other.means[metric] for other in comparison.models}, reverse=True)
    place = means.index(model.means[metric]) if len(comparison.models) > 1 else None
    star = model.name == comparison.proposed and comparison.is_starred(metric)
    return Cell(_number(model, metric), place == 0, place == 1, star)


def _number(model: Model, metric: str) -> str:
    return f"{model.means[metric]:.4f}" + ("" if model.spreads is None else f" ± {model.spreads[metric]:.4f}")


def _over_best_other(comparison: Comparison, metric: str) -> float | None:
    other = comparison.best_other(metric)
    return None if other is None else comparison.difference(metric, other).percent


def _differences(comparison: Comparison) -> Table:
    def cell(difference: Difference) -> Cell:
        return Cell(f"{_percent(difference.percent)} ({_p(difference.p_holm)})")

    others = [model.name for model in comparison.models if model.name != comparison.proposed]
    rows = [
        [Cell(other), *(cell(comparison.difference(metric, other)) for metric in comparison.metrics)]
        for other in others
    ]
    caption = f"Improvement of {comparison.proposed} over each other model in per cent ({_test(comparison)})."
    return Table(caption, ["Over", *comparison.metrics.values()], rows, [])


def _groups(comparison: Comparison, by: str) -> Table:
    rows = [row for row in comparison.groups if row.by == by]
    caption = (
        f"{comparison.proposed} and the best other model by {rows[0].title}: mean over users, improvement in per "
        "cent with 95 % interval (bootstrap over users), p (paired t-test, not corrected)."
    )
    header = ["Metric", "Group", "Users", "Other model", "Its value", "Value", "Improvement", "Interval", "p"]
    return Table(caption, header, [list(map(Cell, _group_row(comparison, row))) for row in rows], [])


def _group_row(comparison: Comparison, row: GroupDifference) -> list[str]:
    start = [comparison.metrics[row.metric], row.group, f"{row.users:,}", row.baseline]
    if row.baseline_value is None or row.value is None or row.gain is None:
        return [*start, "-", "-", "-", "-", "-"]
    interval = "-" if row.gain.low is None else f"[{_percent(row.gain.low)}, {_percent(row.gain.high)}]"
    gain = [_percent(row.gain.percent), interval, _p(row.gain.p, "")]
    return [*start, f"{row.baseline_value:.4f}", f"{row.value:.4f}", *gain]


def _beyond(comparison: Comparison) -> Table:
    """No value is marked: which one is better depends on what the lists are for."""
    metrics = list(comparison.beyond[0].means)
    rows = [[Cell(model.name), *(Cell(_number(model, metric)) for metric in metrics)] for model in comparison.beyond]
    k = metrics[0].partition("@")[2]
    caption = f"Lists of the {k} best items of the whole catalogue for each test target."
    return Table(caption, ["Model", *(metric.capitalize() for metric in metrics)], rows, [])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 1) + 0.0:+.1f}"  # + 0.0, as -0.0 says nothing


def _p(value: float | None, name: str = "p ") -> str:
    if value is None:
        return f"{name}-"
    return f"{name}< 0.001" if value < 0.001 else f"{name}{'= ' if name else ''}{value:.3f}"


# --- formats ----------------------------------------------------------------------------------------------------------


def _terminal(comparison: Comparison) -> str:
    """Bold and underlined by the terminal's own codes."""

    def marked(cell: Cell) -> str:
        text = cell.text + "*" * cell.star
        code = "\033[1m" if cell.best else "\033[4m" if cell.second else ""
        return f"{code}{text}\033[0m" if code else text

    return "\n\n".join(
        f"{textwrap.fill(table.caption, _WIDTH)}\n\n{_grid(table, marked, 'simple')}" for table in tables_of(comparison)
    )


def _markdown(comparison: Comparison) -> str:
    def marked(cell: Cell) -> str:
        text = _escaped(cell.text)
        text = f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.second else text
        return text + r"\*" * cell.star

    return "\n\n".join(
        f"{_escaped(table.caption)}\n\n{_grid(table, marked, 'pipe')}" for table in tables_of(comparison)
    )


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", text)


def _grid(table: Table, marked: Callable[[Cell], str], form: str) -> str:
    rows = [[marked(cell) for cell in row] for row in [*table.rows, *table.last]]
    aligned = ["left", *["right"] * (len(table.header) - 1)]
    return tabulate(rows, table.header, tablefmt=form, disable_numparse=True, colalign=aligned)


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_"},
    "±": r"$\pm$", "<": "$<$", ">": "$>$", "|": r"\textbar{}",
    "[": "{[}", "*": "{*}",  # behind \\\\ or a rule they would begin an option
}  # fmt: skip


def _latex(comparison: Comparison) -> str:
    parts = [_latex_table(table) for table in tables_of(comparison)]
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(parts)


def _latex_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(cells) + r" \\"

    rows = [line([_latex_cell(cell) for cell in row]) for row in table.rows]
    last = [r"    \midrule", *(line([_latex_cell(cell) for cell in row]) for row in table.last)] if table.last else []
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex_text(table.caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"    \toprule",
        line(list(map(_latex_text, table.header))),
        r"    \midrule",
        *rows,
        *last,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_cell(cell: Cell) -> str:
    text = _latex_text(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.second else text
    return text + "$^{*}$" * cell.star


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _json(comparison: Comparison) -> str:
    return json.dumps(asdict(comparison), indent=2, ensure_ascii=False, allow_nan=False)


_COLUMNS = [
    *("by", "group", "users", "metric", "model", "value", "spread"),
    *("improvement_percent", "low", "high", "p", "p_holm"),
]


def _csv(comparison: Comparison) -> str:
    """One line for each value of the first table, and for each group of targets; numbers in full precision.

    ``improvement_percent`` and what follows are about the improvement of the proposed model over that of the line.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for metric in comparison.metrics:
        for model in comparison.models:
            own = model.name == comparison.proposed
            difference = None if own else comparison.difference(metric, model.name)
            gain = [difference.percent, "", "", difference.p, difference.p_holm] if difference else [""] * 5
            spread = "" if model.spreads is None else model.spreads[metric]
            writer.writerow(["", "all", comparison.users, metric, model.name, model.means[metric], spread, *gain])
    for model in comparison.beyond:
        for metric, mean in model.means.items():
            spread = "" if model.spreads is None else model.spreads[metric]
            writer.writerow(["", "all", comparison.users, metric, model.name, mean, spread, *[""] * 5])
    for row in comparison.groups:
        start = [row.by, row.group, row.users, row.metric]
        gain = list(asdict(row.gain).values()) if row.gain else [""] * 4
        writer.writerow([*start, comparison.proposed, row.value, *[""] * 6])
        writer.writerow([*start, row.baseline, row.baseline_value, "", *gain, ""])
    return text.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "terminal": _terminal,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
}
METRICS = "hit@1,hit@5,hit@10,ndcg@5,ndcg@10,mrr"  # the columns, unless others are asked for
SUFFIXES = {".txt": "terminal", ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}
