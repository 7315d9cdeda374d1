"""Ranks and metrics against brute force and against RecBole's own; full ranking; what a run prints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector, Evaluator
from training_fakes import ITEMS, FakeConfig, FakeEvalLoader, Toy, fake_dataset

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.evaluation import ranking
from recbole_ser.evaluation.evaluator import RankEvaluator
from recbole_ser.evaluation.ranking import rank_of_column, rank_targets
from recbole_ser.runs.result import RunResult, duration, final_table

ALL = {"metrics": ["Hit", "NDCG", "MRR", "Recall", "MAP", "Precision"], "topk": [1, 5, 10], "valid_metric": "NDCG@5"}


class TableScorer:
    """Scores read from a table ``[rows, items]``; counts how many rows were encoded."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.encoded = table, 0

    def encode(self, interaction: Interaction) -> torch.Tensor:
        self.encoded += len(interaction)
        return self.table[interaction["row"]]

    def score(self, state: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return state.gather(1, items)


def table_loader(items: torch.Tensor | None, positive: torch.Tensor, catalogue: Any = None) -> Any:
    """A loader of batches of two rows, which the field ``row`` numbers."""
    rows = torch.arange(len(positive))

    class Loader:
        candidates = None if items is None else SimpleNamespace(hash="x")

        def __iter__(self) -> Any:
            for part in rows.split(2):
                yield Interaction({"row": part}), None if items is None else items[part], positive[part]

        def __len__(self) -> int:
            return -(-len(positive) // 2)

        def user_tokens(self) -> list[str]:
            return [f"user-{row}" for row in rows.tolist()]

    loader = Loader()
    loader.rows, loader.catalogue = len(positive), catalogue
    return loader


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=8), st.integers(0, 5))
def test_rank_equals_position_in_a_stable_sort(scores: list[list[int]], column: int) -> None:
    ranks = rank_of_column(torch.tensor(scores, dtype=torch.float), torch.full((len(scores),), column))
    for row, rank in zip(scores, ranks.tolist()):
        order = sorted(range(6), key=lambda c: (-row[c], c))
        assert rank == order.index(column) + 1


def test_rank_without_ties_does_not_depend_on_the_order_of_candidates() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, column = torch.rand(9, 20, generator=generator), torch.randint(20, (9,), generator=generator)
    shuffle = torch.randperm(20, generator=generator)
    moved = shuffle.argsort()[column]
    assert torch.equal(rank_of_column(scores, column), rank_of_column(scores[:, shuffle], moved))


def test_candidates_are_ranked_and_each_row_is_encoded_once() -> None:
    table = torch.tensor([[0.0, 5, 4, 3, 2], [0, 1, 2, 3, 4], [0, 1, 1, 1, 1]])
    items = torch.tensor([[1, 2, 3], [2, 3, 1], [4, 2, 3]])
    scorer = TableScorer(table)
    ranks = rank_targets(scorer, table_loader(items, torch.tensor([2, 0, 1])), "cpu", "Table")
    assert ranks.tolist() == [3, 2, 2]
    assert scorer.encoded == 3


@pytest.mark.parametrize(("block", "scores"), [((8, 1024), 1 << 26), ((3, 2), 1 << 26), ((1, 1), 5), ((100, 100), 1)])
def test_full_ranking_in_chunks_equals_a_sort_of_the_catalogue(
    monkeypatch: pytest.MonkeyPatch, block: tuple[int, int], scores: int
) -> None:
    monkeypatch.setattr(TableScorer, "catalogue_block", block, raising=False)
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", scores)
    rng = np.random.default_rng(0)
    table = torch.from_numpy(rng.integers(0, 4, (7, 12))).float()
    table[:, 0] = 99.0  # the padding item must not be ranked
    catalogue = torch.tensor([9, 3, 0, 4, 11, 1, 2])  # in no order, and not every item
    positive = torch.tensor([9, 3, 4, 11, 1, 2, 4])
    ranks = rank_targets(TableScorer(table), table_loader(None, positive, catalogue), "cpu", "Table")
    for row, (item, rank) in enumerate(zip(positive.tolist(), ranks.tolist())):
        order = sorted((i for i in catalogue.tolist() if i), key=lambda i: (-table[row, i].item(), i))
        assert rank == order.index(item) + 1


def test_full_ranking_of_a_model_equals_ranking_its_full_sort_predict() -> None:
    torch.manual_seed(0)
    model = Toy(FakeConfig("."), fake_dataset()).eval()
    loader = FakeEvalLoader(full=True)
    ranks = rank_targets(model, loader, "cpu", "Toy")
    with torch.no_grad():
        scores = model.full_sort_predict(Interaction(loader.columns))[:, 1:]
    assert torch.equal(ranks, rank_of_column(scores, loader.positive - 1))


def test_a_target_outside_the_catalogue_is_an_error() -> None:
    loader = table_loader(None, torch.tensor([1, 2, 5]), torch.tensor([1, 2, 3]))
    with pytest.raises(UserError, match=r"row 2: the target \(item id 5\)"):
        rank_targets(TableScorer(torch.rand(3, 6)), loader, "cpu", "Table")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("full", [False, True])
def test_a_score_that_is_not_finite_names_model_row_and_user(value: float, full: bool) -> None:
    table = torch.rand(5, 4)
    table[3, 2] = value
    items = None if full else torch.tensor([[1, 2]] * 5)
    loader = table_loader(items, torch.ones(5, dtype=torch.int64), torch.arange(1, 4))
    with pytest.raises(UserError, match=rf"Table gives the score {value} in row 3 \(user 'user-3'\)"):
        rank_targets(TableScorer(table), loader, "cpu", "Table")


def test_no_rows_is_an_error() -> None:
    with pytest.raises(UserError, match="nothing to evaluate"):
        rank_targets(TableScorer(torch.rand(1, 1)), table_loader(None, torch.ones(0)), "cpu", "Table")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 15), min_size=1, max_size=30))
def test_metrics_equal_brute_force(ranks: list[int]) -> None:
    result = RankEvaluator(FakeConfig(".", **ALL)).evaluate(torch.tensor(ranks))
    expected = {"mrr": sum(1 / rank for rank in ranks)}
    for k in ALL["topk"]:
        hits = [rank for rank in ranks if rank <= k]
        expected[f"hit@{k}"] = expected[f"recall@{k}"] = len(hits)
        expected[f"precision@{k}"] = len(hits) / k
        expected[f"ndcg@{k}"] = sum(1 / math.log2(rank + 1) for rank in hits)
        expected[f"mrr@{k}"] = expected[f"map@{k}"] = sum(1 / rank for rank in hits)
    assert result == pytest.approx({name: total / len(ranks) for name, total in expected.items()}, abs=1e-12)
    assert all(type(value) is float for value in result.values())


def test_metrics_equal_those_that_recbole_computes_from_a_dense_score_matrix() -> None:
    config = FakeConfig(".", **ALL)
    scores = torch.rand(50, 40, generator=torch.Generator().manual_seed(3))
    positive = torch.arange(50) % 40
    collector = Collector(config)
    collector.eval_batch_collect(scores.clone(), None, torch.arange(50), positive)
    expected = Evaluator(config).evaluate(collector.get_data_struct())
    result = RankEvaluator(config).evaluate(rank_of_column(scores, positive))
    assert set(result) == {*expected, "mrr"}
    assert {name: round(result[name], 4) for name in expected} == pytest.approx(expected, abs=1e-9)
    assert any(value != round(value, 4) for value in result.values()), "results are rounded"


@pytest.mark.parametrize("metric", ["AUC", "GAUC", "ItemCoverage"])
def test_a_metric_that_needs_more_than_ranks_is_refused(metric: str) -> None:
    with pytest.raises(ConfigError, match=f"'{metric}'.*Hit.*MAP.*MRR.*NDCG.*Precision.*Recall"):
        RankEvaluator(FakeConfig(".", metrics=["Hit", metric]))


@pytest.mark.parametrize("name", ["NDCG@7", "Recall@3", "NDCG", "loss"])
def test_an_unknown_valid_metric_lists_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"valid_metric: '{name}'.*hit@1, hit@3, ndcg@1, ndcg@3, .*mrr"):
        RankEvaluator(FakeConfig(".", valid_metric=name))


def test_final_table_fits_a_terminal_and_ends_with_the_folder() -> None:
    result = RunResult(
        model="SESRec", dataset="ser-sample", seed=2023, protocol="uni99", best_epoch=6, epochs=12,
        valid={"hit@1": 0.123456, "mrr": 0.3}, test={"hit@1": 0.2, "mrr": 0.98765}, candidates={"test": "ab" * 32},
        data="cd" * 32, parameters=1234567, seconds=75.2, cpu_seconds=3700.0, peak_memory_mib=1234.5,
    )  # fmt: skip
    lines = final_table(replace(result, folder=Path("saved/here"))).splitlines()
    assert max(map(len, lines)) <= 80
    assert "hit@1           0.1235    0.2000" in lines
    assert lines[-1].split() == ["run", "saved/here"]
    text = "\n".join(lines)
    assert all(
        fact in text for fact in ("tested is epoch 6", "1 min 15 s", "1 h 1 min", "1,234,567", "abababababab (test)")
    )


def test_duration() -> None:
    assert [duration(s) for s in (0.04, 59.4, 60, 3599.7)] == ["0.0 s", "59.4 s", "1 min 0 s", "1 h 0 min"]


def test_fake_loader_lists_the_positive_in_its_column() -> None:
    loader = FakeEvalLoader()
    assert torch.equal(loader.items.gather(1, loader.column[:, None])[:, 0], loader.positive)
    assert loader.items.max() < ITEMS
