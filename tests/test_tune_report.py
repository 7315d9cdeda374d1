"""What a sweep found: tables that other tools read, tables for people, the chosen configuration, and plots."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recbole_ser.errors import UserError
from recbole_ser.runs.sweep_folder import FAILED, FINISHED, KILLED, RUNNING, STOPPED, WAITING, SweepFolder, Trial
from recbole_ser.tuning import live
from recbole_ser.tuning.live import LiveTable, short, trial_table
from recbole_ser.tuning.plan import Plan
from recbole_ser.tuning.plots import write_plots
from recbole_ser.tuning.space import read_space
from recbole_ser.tuning.tables import failure_line, sweep_table, write_best, write_tables
from recbole_ser.yaml_values import read_yaml

STATUSES = (FINISHED, STOPPED, FAILED, KILLED, RUNNING, WAITING)


def trial_of(number: int, score: float | None, status: str = FINISHED, **more: Any) -> Trial:
    """A trial of three epochs, the second of which was the best, or of none."""
    scores = () if score is None else (score - 0.125, score, score - 0.25)
    valid = {} if score is None else {"ndcg@10": score, "mrr": score / 2}
    trial = Trial(
        number, {"alpha": 0.1}, status, "", len(scores), 1 if scores else -1, valid, scores, 75.25, 60.0, 99.5
    )
    return replace(trial, **more)


# --- tables for other tools -------------------------------------------------------------------------------------------


def test_tables_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    folder = SweepFolder.start(tmp_path / "sweep", {})
    values: dict[str, Any] = {"alpha": 1e-05, "n_layers": 2, "split_threshold": "mean, or not", "multi_interest": True}
    trials = [
        trial_of(0, None, FAILED, values=values, error='ValueError: "größer", than 1'),
        trial_of(1, 0.1 + 0.2, STOPPED, values={**values, "alpha": 1 / 3, "n_layers": 10}),
        trial_of(2, 0.0, values={**values, "split_threshold": "median", "multi_interest": False}),
    ]
    write_tables(folder, trials)
    rows = [trial.row() for trial in trials]

    lines = (folder.path / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert [list(json.loads(line)) for line in lines] == [list(row) for row in rows] and "größer" in lines[0]

    raw = (folder.path / "trials.csv").read_bytes()
    assert raw.count(b"\n") == 4 and b"\r" not in raw
    read = list(csv.DictReader(io.StringIO(raw.decode("utf-8"))))
    assert set(read[0]) == set(rows[1]) and len(read) == 3
    for line, row in zip(read, rows):
        for key, text in line.items():
            value = row.get(key, "")
            assert (float(text) == value) if isinstance(value, float) else (text == str(value))
    assert read[0]["ndcg@10"] == read[0]["mrr"] == "" and read[0]["error"] == 'ValueError: "größer", than 1'
    assert read[2]["ndcg@10"] == "0.0", "nothing is not the same as nought"


def test_tables_are_replaced(tmp_path: Path) -> None:
    folder = SweepFolder.start(tmp_path / "sweep", {})
    write_tables(folder, [])
    assert (folder.path / "trials.jsonl").read_text() == ""
    for count in (3, 1):
        write_tables(folder, [trial_of(number, 0.5) for number in range(count)])
        assert len((folder.path / "trials.jsonl").read_text().splitlines()) == count
        assert len((folder.path / "trials.csv").read_text().splitlines()) == count + 1
    assert sorted(path.name for path in folder.path.iterdir()) == ["sweep.json", "trials", "trials.csv", "trials.jsonl"]


# --- tables for people ------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
VALUE = TEXT | st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none() | st.lists(st.integers())


def trials_over(keys: list[str]) -> st.SearchStrategy[list[Trial]]:
    trial = st.builds(
        trial_of,
        st.integers(0, 99_999),
        st.none() | st.floats(0, 1),
        st.sampled_from(STATUSES),
        values=st.fixed_dictionaries(dict.fromkeys(keys, VALUE)),
        error=TEXT,
        seconds=st.floats(0, 1e7),
        epochs=st.integers(0, 10_000_000),
    )
    return st.lists(trial, max_size=40)


TRIALS = st.lists(TEXT, unique=True, max_size=6).flatmap(trials_over)


@hypothesis_settings(max_examples=60, deadline=None)
@given(TRIALS, TEXT.filter(bool), st.integers(10, 80))
def test_no_table_is_wider_than_it_may_be(trials: list[Trial], metric: str, width: int) -> None:
    failures = [failure_line(trial) for trial in trials if trial.status in (FAILED, KILLED)]
    lines = sweep_table(trials, metric, width=100).split("\n")
    assert lines[len(lines) - len(failures) :] == failures
    assert max(map(len, lines[: len(lines) - len(failures)])) <= 100
    table = LiveTable(10**6, metric, io.StringIO())
    for trial in trials:
        table.show(trial)
    assert max(map(len, table.lines())) <= 80 and max(map(len, table.lines(width))) <= width
    assert len(table.lines()) <= 2 + 15


def test_a_line_of_the_table() -> None:
    values = {"alpha": 0.000123456, "codes.rqvae.levels": 3, "split_threshold": "mean"}
    trials = [
        trial_of(7, 0.123456, STOPPED, values=values),
        trial_of(8, None, WAITING, values={**values, "alpha": 1.0}),
    ]
    assert trial_table(trials, "ndcg@10") == [
        "trial status   epochs   ndcg@10    time     alpha  levels  split_threshold",
        "    7 stopped       3    0.1235    1:15  0.000123       3             mean",
        "    8 waiting       0                           1       3             mean",
    ]
    assert trial_table([], "average_precision@10") == ["trial status   epochs average_p    time"]


def test_keys_that_do_not_fit_are_left_out() -> None:
    values = {f"key_{number}": 0.5 for number in range(9)}
    header, line = trial_table([trial_of(1, 0.5, values=values)], "mrr")
    assert header.endswith("key_0  key_1  key_2  key_3  key_4 …") and line.split()[-5:] == ["0.5"] * 5
    assert len(header) <= 80


def test_names_are_cut_only_as_far_as_there_is_no_room() -> None:
    values = {"alpha": 0.00012345, "beta": 0.00012345, "weight_decay": 1e-05, "learning_rate": 0.00012345}
    for width, names in [(88, "weight_decay  learning_rate"), (80, "weight_…  learnin…"), (78, "weight_… …")]:
        header, line = trial_table([trial_of(1, 0.5, values=values)], "ndcg@10", width)
        assert header.endswith(f"    beta  {names}") and "0.000123  0.000123" in line and len(header) <= width


def test_only_a_value_that_does_not_fit_is_cut() -> None:
    for text, end in [("y" * 24, "yy"), ("y" * 25, "y…")]:
        (_, line) = trial_table([trial_of(1, 0.5, values={"x": text})], "mrr")
        assert line.endswith(end)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75.4, "1:15"), (59.6, "1:00"), (7384, "2:03:04")])
def test_time_spent(seconds: float, text: str) -> None:
    assert live.clock(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00012345, "0.000123"), (1e-05, "1e-05"), (0.1, "0.1"), (1.0, "1"), (123456, "123456"), ("mean", "mean"),
     (None, "None"), (True, "True"), ([200, 80], "[200, 80]")],
)  # fmt: skip
def test_short_values(value: Any, text: str) -> None:
    assert short(value) == text


def numbers(lines: list[str]) -> list[int]:
    return [int(line.split()[0]) for line in lines]


def test_the_best_trials_come_first_and_those_without_a_score_last() -> None:
    scores = [0.25, None, 0.5, 0.0, 0.5, 0.375]
    trials = [trial_of(number, score) for number, score in enumerate(scores)]
    assert numbers(sweep_table(trials, "ndcg@10").splitlines()[1:]) == [2, 4, 5, 0, 3, 1]
    trials[2] = trial_of(2, 0.5, FAILED)
    assert numbers(sweep_table(trials, "ndcg@10").splitlines()[1:7]) == [4, 5, 0, 3, 2, 1]


def test_of_many_trials_the_table_has_the_best_and_says_where_the_others_are() -> None:
    trials = [trial_of(number, number / 100) for number in range(100)]
    lines = sweep_table(trials, "ndcg@10").splitlines()
    assert numbers(lines[1:21]) == list(range(99, 79, -1)) and lines[21:] == ["       and 80 more in trials.csv"]
    assert len(sweep_table(trials[:20], "ndcg@10").splitlines()) == 21


def test_every_failure_is_listed_with_its_configuration_in_full() -> None:
    values = {"alpha": 1e-05, "codes.rqvae.lambda_rq_cl": 0.123456789, "mlp_hidden_size": [200, 80] * 20}
    trials = [trial_of(number, 0.9) for number in range(30)]
    trials[25] = trial_of(25, None, FAILED, values=values, error="ValueError: what is said")
    trials[27] = trial_of(27, 0.1, KILLED, error="its process died twice")
    trials[28] = trial_of(28, 0.1, STOPPED)
    lines = sweep_table(trials, "ndcg@10").splitlines()
    assert lines[22:] == [
        f"trial 25 failed (alpha=1e-05, codes.rqvae.lambda_rq_cl=0.123456789, mlp_hidden_size={[200, 80] * 20}): "
        "ValueError: what is said",
        "trial 27 killed (alpha=0.1): its process died twice",
    ]


# --- the table while the sweep runs -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Keeps what a terminal would show, for the few codes that the table uses."""

    def __init__(self) -> None:
        super().__init__()
        self.screen: list[str] = [""]
        self.row = self.drawings = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.drawings += 1
        for code, line in re.findall(r"(\x1b\[\d*[A-Z])|([^\x1b]+)", text):
            if code.endswith("A"):
                self.row -= int(code[2:-1])
                assert self.row >= 0
            elif code == "\x1b[2K":
                self.screen[self.row] = ""
            elif code == "\x1b[J":
                self.screen[self.row :] = [""]
            else:
                assert not code and line.count("\n") == 1 and line.endswith("\n")
                assert self.screen[self.row] == "", "nothing is written over"
                self.screen[self.row] = line[:-1]
                self.row += 1
                self.screen += [""] * (self.row == len(self.screen))
        return len(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock of the table says; it stands still until it is set."""
    now = [1000.0]
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setenv("COLUMNS", "120")
    return now


def test_where_there_is_no_terminal_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    for table in (LiveTable(3, "mrr", stream), LiveTable(3, "mrr")):
        table.show(trial_of(0, 0.5))
        table.refresh()
        table.close(erase=False)
        assert len(table.lines()) == 3
    assert stream.getvalue() == "" and capfd.readouterr() == ("", "")


def test_in_a_terminal_the_table_redraws_itself_in_place(clock: list[float]) -> None:
    terminal = Terminal()
    table = LiveTable(40, "ndcg@10", terminal)
    assert terminal.drawings == 0
    for number in range(40):
        clock[0] += 1
        table.show(trial_of(number, 0.5, STATUSES[number % 6]))
        assert terminal.screen == [*table.lines(120), ""]
        assert max(map(len, terminal.screen)) <= 120
    for number in range(40):
        clock[0] += 1
        table.show(trial_of(number, 0.5))
    table.close(erase=False)
    assert terminal.screen == [*table.lines(120), ""] and "40 of 40 trials over" in terminal.screen[0]


def test_a_finished_table_makes_room_for_what_is_printed(clock: list[float]) -> None:
    terminal = Terminal()
    terminal.write("before\n")
    table = LiveTable(1, "mrr", terminal)
    table.show(trial_of(0, 0.5))
    table.close(erase=True)
    assert terminal.screen == ["before", ""]


def test_what_is_above_the_table_stays_there(clock: list[float]) -> None:
    terminal = Terminal()
    terminal.write("before\n")
    table = LiveTable(2, "mrr", terminal)
    for number in range(2):
        clock[0] += 1
        table.show(trial_of(number, 0.5))
    assert terminal.screen == ["before", *table.lines(), ""]


def test_the_table_is_not_drawn_too_often_but_once_more_in_the_end(clock: list[float]) -> None:
    terminal = Terminal()
    table = LiveTable(9, "mrr", terminal)
    table.show(trial_of(0, 0.5))
    assert terminal.drawings == 1
    clock[0] += 0.4
    table.show(trial_of(1, 0.5))
    table.refresh()
    assert terminal.drawings == 1
    clock[0] += 0.2
    table.refresh()
    assert terminal.drawings == 2 and len(terminal.screen) == 5
    table.show(trial_of(2, 0.5))
    table.close(erase=False)
    assert terminal.drawings == 3 and len(terminal.screen) == 6


def test_the_table_fits_into_a_narrow_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    LiveTable(1, "mrr", terminal).show(trial_of(0, 0.5))
    assert max(map(len, terminal.screen)) == 40


def test_the_head_counts_what_has_become_of_the_trials(clock: list[float]) -> None:
    table = LiveTable(12, "mrr", io.StringIO())
    assert table.lines()[0] == "0 of 12 trials over after 0.0 s: starting"
    for number, status in enumerate([FINISHED, STOPPED, FINISHED, FAILED, RUNNING, RUNNING, KILLED, WAITING]):
        table.show(trial_of(number, 0.5, status))
    clock[0] += 75
    assert (
        table.lines()[0]
        == ("5 of 12 trials over after 1 min 15 s: 2 finished, 1 stopped, 1 failed, 1 killed, 2 running")[:80]
    )
    table.show(trial_of(4, 0.5, RUNNING), FINISHED)
    assert table.lines()[0].startswith("6 of 12 trials over after 1 min 15 s: 3 finished, 1 stopped, ")
    assert table.trials[4].status == FINISHED


def test_running_trials_come_first_then_the_best(clock: list[float]) -> None:
    table = LiveTable(100, "mrr", io.StringIO())
    for number in range(100):
        table.show(trial_of(number, None if number == 50 else number / 100, RUNNING if number % 10 == 3 else FINISHED))
    rest = [number for number in range(99, -1, -1) if number % 10 != 3]
    assert numbers(table.lines()[2:]) == [*range(3, 100, 10), *rest[:5]]
    for number in range(40):
        table.show(trial_of(number, None, WAITING))
    assert numbers(table.lines()[2:]) == list(range(15)), "none of the 54 that are over"


def test_trials_without_a_score_stand_below_the_others(clock: list[float]) -> None:
    table = LiveTable(4, "mrr", io.StringIO())
    for number, score in enumerate([None, 0.0, 0.5, 0.5]):
        table.show(trial_of(number, score))
    assert numbers(table.lines()[2:]) == [2, 3, 1, 0]


# --- the chosen configuration -----------------------------------------------------------------------------------------


def test_the_best_configuration_is_read_back_as_it_was(tmp_path: Path) -> None:
    values = {
        "learning_rate": 1e-05, "weight_decay": 1e-07, "alpha": 0.1 + 0.2, "big": 1e22, "minus": -2.5e-09, "one": 1.0,
        "n_layers": 2, "multi_interest": True, "lr_plateau": None, "split_threshold": "mean", "mode": "uni99",
        "codes": {"summaries": "template", "rqvae": {"levels": 2, "lambda_rq_cl": 1e-04}}, "data": "/größer: #1",
        "mlp_hidden_size": [200, 80], "texts": ["~", "no", "1", "", "a b"],
    }  # fmt: skip
    path = tmp_path / "deep" / "best.yaml"
    write_best(path, values, "recbole-ser run --model=SESRec")
    assert (
        path.read_text(encoding="utf-8").startswith("# recbole-ser run --model=SESRec\n")
        and "größer" in path.read_text()
    )
    found = read_yaml(path)
    assert found == values and {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in values.items()
    }


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.sampled_from(["1e-3", "1E5", "-2e+07"]))
def test_any_number_and_what_looks_like_one_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "best.yaml"
    write_best(path, {"value": value}, "command")
    found = read_yaml(path)["value"]
    assert found == value and type(found) is type(value)


# --- plots ------------------------------------------------------------------------------------------------------------

SPACE: dict[str, Any] = {
    "alpha": {"loguniform": [0.001, 1.0]},
    "split_threshold": {"choice": ["mean", "median", 0.5]},
    "codes.rqvae.levels": {"integer": [1, 3]},
    "dropout_prob": {"uniform": [0, 0.5]},
}
POINTS = {
    "alpha": [0.001, 0.5, 0.02, 1.0, 0.1, 0.3],
    "split_threshold": ["median", "mean", 0.5, "mean", "mean", 0.5],
    "codes.rqvae.levels": [1, 2, 3, 3, 2, 1],
    "dropout_prob": [0.0, 0.5, 0.25, 0.1, 0.2, 0.3],
}


def sweep(keys: int) -> tuple[Plan, list[Trial]]:
    """Finished are 0, 1 and 4, stopped is 2; 3 failed after, and 5 before its first epoch."""
    names = list(SPACE)[:keys]
    plan = Plan("mine", read_space({key: SPACE[key] for key in names}, "mine"))
    outcomes = [(0.25, FINISHED), (0.5, FINISHED), (0.375, STOPPED), (0.9, FAILED), (0.4, FINISHED), (None, FAILED)]
    trials = [
        trial_of(number, score, status, values={key: POINTS[key][number] for key in names})
        for number, (score, status) in enumerate(outcomes)
    ]
    return plan, trials


@pytest.mark.parametrize("keys", [1, 2, 4])
def test_plots(keys: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    plan, trials = sweep(keys)
    write_plots(plan, trials, tmp_path / "plots", "ndcg@10")
    expected = [f"{dimension.key}.png" for dimension in plan.space] + ["parallel.png"] * (keys > 2)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(expected)
    for name in expected:
        content = (tmp_path / "plots" / name).read_bytes()
        assert content.startswith(b"\x89PNG") and content.rstrip().endswith(b"IEND\xaeB`\x82") and len(content) > 5000


def test_one_trial_is_enough_for_all_plots(tmp_path: Path, figures: dict[str, Any]) -> None:
    plan, trials = sweep(4)
    write_plots(plan, trials[:1], tmp_path, "ndcg@10")
    assert len(figures) == 5 == len(list(tmp_path.glob("*.png")))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The figures by the names of their files; they are not drawn."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra plot)")
    from matplotlib.figure import Figure

    found: dict[str, Any] = {}

    def save(self: Figure, handle: Any, **options: Any) -> None:
        found[Path(handle.name).name.removeprefix(".").partition(".png")[0]] = self

    monkeypatch.setattr(Figure, "savefig", save)
    return found


def points(line: Any) -> list[tuple[float, float]]:
    return [tuple(point) for point in np.asarray(line.get_xydata(), dtype=float).tolist()]


def test_a_plot_has_both_metrics_and_hollow_marks_for_trials_that_were_given_up(
    tmp_path: Path, figures: dict[str, Any]
) -> None:
    plan, trials = sweep(1)
    write_plots(plan, trials, tmp_path, "ndcg@10")
    left, right = figures["alpha"].axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("NDCG@10, validation", "MRR, validation")
    assert left.get_xlabel() == "alpha" and left.get_xscale() == "log"
    for axes, factor in ((left, 1.0), (right, 0.5)):
        line, full, hollow = axes.lines
        done = [(0.001, 0.25), (0.5, 0.5), (0.1, 0.4)]
        assert points(full) == [(x, pytest.approx(y * factor)) for x, y in done]
        assert points(hollow) == [(0.02, pytest.approx(0.375 * factor))]
        assert (full.get_fillstyle(), hollow.get_fillstyle()) == ("full", "none")
        assert [x for x, _ in points(line)] == [0.001, 0.02, 0.1, 0.5] and full.get_linestyle() == "None"


def test_plots_of_several_keys_have_no_line_and_listed_values_have_names(
    tmp_path: Path, figures: dict[str, Any]
) -> None:
    plan, trials = sweep(2)
    write_plots(replace(plan, plot=("MRR",)), trials, tmp_path, "ndcg@10")
    assert sorted(figures) == ["alpha", "split_threshold"]
    (left,) = figures["split_threshold"].axes
    assert left.get_ylabel() == "MRR, validation"
    full, hollow = left.lines
    assert [x for x, _ in points(full)] == [1, 0, 0] and [x for x, _ in points(hollow)] == [2]
    assert [label.get_text() for label in left.get_xticklabels()] == ["mean", "median", "0.5"]


def test_parallel_coordinates(tmp_path: Path, figures: dict[str, Any]) -> None:
    plan, trials = sweep(4)
    write_plots(plan, trials, tmp_path, "ndcg@10")
    axes, bar = figures["parallel"].axes
    assert bar.get_ylabel() == "ndcg@10, validation"
    lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
    heights = [[y for _, y in points(line)] for line in lines]
    assert heights == [  # by score, so that the best is on top: trials 0, 2, 4, 1
        pytest.approx([0, 0.5, 0, 0]),
        pytest.approx([np.log10(20) / 3, 1, 1, 0.5]),
        pytest.approx([2 / 3, 0, 0.5, 0.4]),
        pytest.approx([np.log10(500) / 3, 0, 0.5, 1]),
    ]
    assert [line.get_linestyle() for line in lines] == ["-", ":", "-", "-"]
    assert [line.get_linewidth() for line in lines] == [1, 1, 1, 3]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(SPACE)


def test_plots_need_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    plan, trials = sweep(4)
    with pytest.raises(UserError) as error:
        write_plots(plan, trials, tmp_path / "plots", "ndcg@10")
    assert str(error.value) == 'plots need matplotlib: pip install "recbole_ser[plot]"; the tables do not'
    assert not list(tmp_path.rglob("*.*"))
