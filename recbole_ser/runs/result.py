"""The result of a run, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_SHORT = 12  # characters of a hash


@dataclass(frozen=True)
class RunResult:
    """The result of a finished run (``result.json``).

    Args:
        model, dataset, seed, protocol: what was run; ``protocol`` names the candidates (``uni99``, ``full``), and the
            split and the average where they are not the default ones (``uni99, TS [0.8, 0.9], mean over users``).
        best_epoch, epochs: the epoch (from 0) whose weights were tested, and the number of epochs that were trained.
        valid, test: metrics by name, in full precision.
        candidates: hash of the candidate table by split; empty when the whole catalogue was ranked.
        targets: hash of the targets by split.
        ranks: hash of ``ranks.csv``, the ranks of the test targets.
        data: hash of the data set.
        parameters: number of values that the model learns.
        seconds, cpu_seconds: wall-clock and CPU time of all evaluated epochs, before and after interruptions.
        peak_memory_mib: largest resident memory of the process.
        codes: ``hash`` of the file of user codes, and the back-ends that made the ``summaries`` and ``vectors``;
            ``None`` if the model reads no codes.
        texts: ``hash`` of the vectors of texts, and what made those of ``items`` and ``users``, and the ``vectors``;
            ``None`` if the model reads no texts.
        remarks: what a reader has to know about the weights that were tested, see ``SearchRecommender.remarks``.
        folder: folder of the run; ``None`` if it has none.  It is not written to the file, since folders may be moved.
    """

    model: str
    dataset: str
    seed: int
    protocol: str
    best_epoch: int
    epochs: int
    valid: dict[str, float]
    test: dict[str, float]
    candidates: dict[str, str]
    data: str
    parameters: int
    seconds: float
    cpu_seconds: float
    peak_memory_mib: float
    codes: dict[str, str] | None = None
    targets: dict[str, str] = field(default_factory=dict)
    ranks: str = ""
    texts: dict[str, str] | None = None
    remarks: list[str] = field(default_factory=list)
    folder: Path | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The result as it is written to ``result.json``."""
        values = asdict(self)
        del values["folder"]
        return values


def final_table(result: RunResult) -> str:
    """The metrics of validation and test to four decimals, facts about the run, and its folder on the last line."""
    candidates = [f"{value[:_SHORT]} ({split})" for split, value in result.candidates.items()]
    cpu, memory = duration(result.cpu_seconds), f"{result.peak_memory_mib:,.0f} MiB"
    facts = {
        "epochs": f"{result.epochs}; tested is epoch {result.best_epoch} (the first is 0)",
        "time": f"{duration(result.seconds)} ({cpu} of CPU time), at most {memory}",
        "parameters": f"{result.parameters:,}",
        "data": result.data[:_SHORT],
        "candidates": ", ".join(candidates) or "the whole catalogue",
    }
    if not candidates:
        targets = [f"{value[:_SHORT]} ({split})" for split, value in result.targets.items()]
        facts["targets"] = ", ".join(targets)
    if result.codes:
        facts["codes"] = f"{result.codes['hash'][:_SHORT]} ({result.codes['summaries']}, {result.codes['vectors']})"
    if result.texts:
        back_ends = ", ".join(result.texts[name] for name in ("items", "users", "vectors"))
        facts["texts"] = f"{result.texts['hash'][:_SHORT]} ({back_ends})"
    lines = [
        f"{result.model} on {result.dataset}, {result.protocol}, seed {result.seed}",
        f"{'':<12}{'valid':>10}{'test':>10}",
        *(
            f"{name:<12}{result.valid[name]:>10.4f}{value:>10.4f}"
            for name, value in result.test.items()
            if _shown(name)
        ),
        *(f"{name:<12}{value}" for name, value in facts.items()),
        *(f"{'note':<12}{remark}" for remark in result.remarks),
        f"{'run':<12}{result.folder}",
    ]
    return "\n".join(lines)


def _shown(metric: str) -> bool:
    """Whether the table shows ``metric``: all but ``ndcg@1``, which is ``hit@1``, and the truncated ``mrr@k``."""
    return metric != "ndcg@1" and not metric.startswith("mrr@")


def epoch_line(line: dict[str, Any], metric: str) -> str:
    """One line of ``metrics.jsonl`` as the console shows it: the losses, one validation metric and the time."""
    losses = shown_losses(line["losses"], line.get("weights", {}))
    return f"epoch {line['epoch']}: {losses}; valid {metric} {line['valid'][metric]:.4f}; {duration(line['seconds'])}"


def unweighted(losses: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """``losses``, which are weighted, as they were before; those with a weight of 0 are left out."""
    return {name: value / weights.get(name, 1.0) for name, value in losses.items() if weights.get(name, 1.0)}


def shown_losses(losses: Mapping[str, float], weights: Mapping[str, float]) -> str:
    """``rec 0.6931, alignment 5.2153 x 0.1``: the losses before they were weighted, beside their weights."""
    shown = unweighted(losses, weights).items()
    return ", ".join(
        f"{name} {_shown_loss(value)}" + (f" x {weights[name]:g}" if name in weights else "") for name, value in shown
    )


def _shown_loss(value: float) -> str:
    """A loss with four decimals or, if it is a small one, with two digits."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """``75.2`` as ``1 min 15 s``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"
