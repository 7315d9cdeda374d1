"""The card of a run: one page on what was trained and tested on what, with which result, and how to get it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.stats import norm

from recbole_ser.evaluation.metrics import Metric
from recbole_ser.files import atomic_write
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import duration
from recbole_ser.yaml_values import parse_value

_LEFT_OUT = ("run_dir", "show_progress")  # where a run is and what it shows is nothing to reproduce


def write_card(folder: RunFolder) -> None:
    """Write ``card.md`` of the finished run in ``folder``.

    Raises:
        UserError: the run is not finished, or a file of it is damaged.
    """
    with atomic_write(folder.path / "card.md") as handle:
        handle.write(card(folder))


def card(folder: RunFolder) -> str:
    """The card, in Markdown.

    The intervals of test metrics are of the mean over targets or, as the run averages, over users: 95 %, by the normal
    approximation, with the users as the sample, since the targets of one user are not independent.
    """
    result, data, environment = folder.result(), folder.data(), folder.environment()
    epochs = f"{result.epochs}; the best by validation, number {result.best_epoch}, was tested (the first is 0)"
    cost = f"{duration(result.cpu_seconds)} of CPU time, at most {result.peak_memory_mib:,.0f} MiB"
    hashes = {
        "data": result.data,
        **{f"{split} candidates": value for split, value in result.candidates.items()},
        **{f"{split} targets": value for split, value in result.targets.items()},
        **({"codes": _made(result.codes)} if result.codes else {}),
        **({"texts": _made(result.texts)} if result.texts else {}),
        "ranks": result.ranks,
    }
    versions = {"Python": environment["python"], **environment["versions"]}
    parts = [
        f"# {result.model} on {result.dataset}",
        _table(
            ("", ""),
            [
                ("protocol", result.protocol),
                ("seed", result.seed),
                *((name, f"{count:,}") for name, count in data["counts"].items()),
                ("parameters", f"{result.parameters:,}"),
                ("epochs", epochs),
                ("cost", cost),
                ("device", environment["device"]),
                ("threads", environment["threads"]),
            ],
        ),
        "## Result",
        _table(("metric", "validation", "test", "95 % interval of test"), _metrics(folder)),
        *(f"Note: {remark}." for remark in result.remarks),
        "## How to get it again",
        f"```bash\n{_command(folder)}\n```",
        "Equal hashes mean equal data, candidates and targets, and results that can be compared.",
        _table(("", "SHA-256"), [(name, f"`{value}`") for name, value in hashes.items()]),
        _table(("package", "version"), [(name, version or "not installed") for name, version in versions.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(folder: RunFolder) -> list[tuple[str, str, str, str]]:
    result, ranks = folder.result(), folder.ranks()
    users = np.unique(ranks["user_id"].to_numpy(), return_inverse=True)[1]
    over_users = bool(folder.config()["average_over"] == "users")
    rows = []
    for name, test in result.test.items():
        values = Metric.parse(name).values(ranks["rank"].to_numpy())
        half = norm.ppf(0.975) * standard_error(values, users, over_users)
        rows.append((name, f"{result.valid[name]:.4f}", f"{test:.4f}", f"{test - half:.4f} to {test + half:.4f}"))
    return rows


def standard_error(values: np.ndarray, users: np.ndarray, over_users: bool) -> float:
    """The standard error of a mean of ``values [n]``, whose targets belong to ``users [n]``, numbered from 0.

    Args:
        over_users: whether it is the mean over users of each one's mean, or the mean over targets, which is a ratio of
            two means over users: of their sums, and of their numbers of targets.
    """
    sums, counts = np.bincount(users, values), np.bincount(users)
    deviations = (
        sums / counts - (sums / counts).mean() if over_users else (sums - values.mean() * counts) / counts.mean()
    )
    return float(np.sqrt((deviations**2).sum())) / len(counts)


def _command(folder: RunFolder) -> str:
    arguments = folder.arguments()
    given = {key: value for key, value in arguments["config_dict"].items() if key not in _LEFT_OUT}
    words = ["recbole-ser", "run", f"--model={arguments['model']}", f"--dataset={arguments['dataset']}"]
    return " ".join(map(shlex.quote, words + [f"--{key}={_as_yaml(value)}" for key, value in given.items()]))


def _as_yaml(value: Any) -> str:
    """``value`` as it is written on the command line, which is read as YAML; JSON is YAML."""
    return value if isinstance(value, str) and parse_value(value) == value else json.dumps(value, ensure_ascii=False)


def _made(parts: dict[str, str]) -> str:
    back_ends = ", ".join(value for name, value in parts.items() if name != "hash")
    return f"{parts['hash']} ({back_ends})"


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
