"""The card of a run: its intervals, and the command that gives the run again."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import write_toy

import recbole_ser
from recbole_ser.commands.arguments import parse_arguments
from recbole_ser.config import SERConfig
from recbole_ser.evaluation.card import standard_error


@pytest.mark.parametrize("over_users", [False, True])
def test_the_standard_error_is_that_of_samples_of_users(over_users: bool) -> None:
    random = np.random.default_rng(0)
    counts = random.integers(1, 6, 400)
    level = np.repeat(random.normal(size=400), counts)  # targets of one user are alike
    users, values = np.repeat(np.arange(400), counts), level + 0.3 * random.normal(size=counts.sum())
    sums = np.bincount(users, values)
    means = []
    for _ in range(2000):
        chosen = random.integers(0, 400, 400)
        mean = (sums / counts)[chosen].mean() if over_users else sums[chosen].sum() / counts[chosen].sum()
        means.append(mean)
    assert standard_error(values, users, over_users) == pytest.approx(np.std(means), rel=0.08)
    alone = standard_error(values, np.arange(len(values)), over_users)
    assert alone == pytest.approx(values.std() / len(values) ** 0.5)


def test_the_card_says_how_to_get_the_run_again(tmp_path: Path) -> None:
    write_toy(tmp_path / "data")
    given = {
        "data_path": str(tmp_path / "data"), "require_both_histories": False, "eval_args": {"mode": "full"},
        "epochs": 1, "learning_rate": 1e-5, "show_progress": False, "state": "WARNING",
    }  # fmt: skip
    result = recbole_ser.run("SASRec", "toy", config_dict={**given, "run_dir": str(tmp_path / "a run")})
    assert result.folder is not None
    text = (result.folder / "card.md").read_text()
    (line,) = re.findall(r"```bash\n(.*)\n```", text)
    words = shlex.split(line)
    assert words[:4] == ["recbole-ser", "run", "--model=SASRec", "--dataset=toy"]
    again = SERConfig("SASRec", "toy", None, parse_arguments(words[4:]))
    assert again.arguments()["config_dict"] == {k: v for k, v in given.items() if k != "show_progress"}
    assert f"| ndcg@10 | {result.valid['ndcg@10']:.4f} | {result.test['ndcg@10']:.4f} | " in text
    assert result.data in text and result.targets["test"] in text
