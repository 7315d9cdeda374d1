"""The contract that every search-aware model has to keep, ours and yours, as checks to run in your own tests.

    import pytest
    from recbole_ser.testing import CHECKS, ModelUnderTest

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check, tmp_path):
        check(ModelUnderTest(MyModel, tmp_path))

Each check raises ``AssertionError`` with what is wrong.  The data are generated; nothing is downloaded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import init_seed
from torch import Tensor

from recbole_ser.config import SERConfig
from recbole_ser.data.codes import write_codes
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import EvalLoader, TrainLoader
from recbole_ser.data.planted import SyntheticLogs, SyntheticSpec, generate
from recbole_ser.data.synthetic import write
from recbole_ser.data.text_vectors import write_text_vectors
from recbole_ser.errors import ConfigError
from recbole_ser.model.base import SearchRecommender
from recbole_ser.registry import find_model

SMALL = SyntheticSpec(
    users=60, items=140, queries=30, interactions=600, searches=400, terms=60, topics=6, sources=3, max_clicks=3,
    max_terms=4, start=1_600_000_000, span=1_000_000, rich_users=0.6, sparse_users=0.2, seed=7,
)  # fmt: skip

TOLERANCE = 1e-5


@dataclass(frozen=True)
class ModelUnderTest:
    """A model class (or registered name), a folder for its data, and configuration values to build it with.

    Raises:
        ConfigError: the model is no ``SearchRecommender``, so the contract does not apply to it.
    """

    model: str | type[SearchRecommender]
    folder: Path
    config: dict[str, Any] | None = None

    @cached_property
    def logs(self) -> SyntheticLogs:
        return generate(SMALL)

    @cached_property
    def dataset(self) -> SERDataset:
        return self.load("contract", self.logs)

    def __post_init__(self) -> None:
        model = find_model(self.model) if isinstance(self.model, str) else self.model
        if not issubclass(model, SearchRecommender):
            raise ConfigError(
                f"the contract is that of SearchRecommender, and {model.__name__} is none: RecBole's own models have "
                "no encode and score to be checked, and a class of yours must derive from it"
            )

    def load(self, name: str, logs: SyntheticLogs) -> SERDataset:
        """Write ``logs`` as data set ``name`` and load it as a run of this model would."""
        write(logs, Path(self.folder) / name)
        values = {
            "data_path": str(self.folder), "MAX_ITEM_LIST_LENGTH": 8, "max_search_length": 6,
            "max_clicks_per_search": 3, "max_terms_per_query": 4, "require_both_histories": False,
            "train_batch_size": 32, "seed": 11, "eval_args": {"mode": "uni19"},
            "load_col": {"inter": "*", "search": "*", "query": "*", "item": "*", "user": "*"}, **(self.config or {}),
        }  # fmt: skip
        config = SERConfig(self.model, name, None, values)
        config["codes_file"] = str(self.folder / f"{name}.codes")
        config["texts_folder"] = str(self.folder / f"{name}.texts")
        dataset = SERDataset(config)
        if config.model_class.reads_codes:
            write_random_codes(config["codes_file"], dataset)
        if config.model_class.reads_texts:
            write_random_texts(config["texts_folder"], dataset)
        return dataset

    def build(self, dataset: SERDataset | None = None) -> SearchRecommender:
        """Build the model with the initial weights of its seed, in evaluation mode."""
        dataset = dataset or self.dataset
        init_seed(dataset.config["seed"], True)
        return dataset.config.model_class(dataset.config, dataset).eval()

    def training_batch(self, dataset: SERDataset | None = None, epoch: int = 0) -> Interaction:
        dataset = dataset or self.dataset
        loader = TrainLoader(dataset.config, dataset)
        loader.set_epoch(epoch)
        return next(iter(loader))

    def evaluation_batch(self) -> tuple[Interaction, Tensor]:
        """All test targets and their candidates; some users have no searches, and two have no history at all."""
        dataset = self.dataset
        loader = EvalLoader(dataset.config, dataset, "test")
        batch, items, _ = next(iter(loader))
        assert items is not None
        first = copy.copy(batch.interaction)
        for field in (f for f in first if f.startswith(("search_", "item_length")) or f.endswith("_list")):
            first[field] = first[field].clone()
            first[field][:2] = 0  # two users without any history
        return Interaction(first), items


def losses_and_gradients_are_finite(under_test: ModelUnderTest) -> None:
    """Losses and gradients are finite, also without searches or without any history, and all parameters are trained."""
    model = under_test.build().train()
    if model.trains_on != "interactions":
        lengths = under_test.training_batch()
        assert (lengths["search_length"] == 0).any()
        assert model.trains_on == "users" or (lengths["item_length"] == 0).any()  # users have an item at least
    touched: set[str] = set()
    for epoch in range(3):
        model.zero_grad()
        losses = model.losses(under_test.training_batch(epoch=epoch))
        for name, loss in losses.items():
            assert loss.ndim == 0 and torch.isfinite(loss), f"loss '{name}' is {loss}"
        torch.stack(list(losses.values())).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
                if parameter.grad.abs().sum() > 0:
                    touched.add(name)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    missed = {name for name, _ in model.named_parameters()} - touched - frozen
    assert not missed, f"no gradient ever reaches {sorted(missed)}"


def scores_are_finite_logits(under_test: ModelUnderTest) -> None:
    """Every user's scores are finite logits; a sigmoid on top would round confident scores to the same 1.0."""
    model = under_test.build()
    scores = score(model, *under_test.evaluation_batch())
    assert torch.isfinite(scores).all(), "a score is not finite"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # the logits of initial weights may all lie between 0 and 1
    scores = score(model, *under_test.evaluation_batch())
    assert (scores < 0).any() or (scores > 1).any(), "scores look like probabilities: return logits"


def scores_do_not_depend_on_padding(under_test: ModelUnderTest) -> None:
    model = under_test.build()
    batch, items = under_test.evaluation_batch()
    short = (batch["item_length"] <= 4) & (batch["search_length"] <= 3)
    assert short.any(), "no short history among the generated ones"
    rows = Interaction({name: values[short] for name, values in batch.interaction.items()})
    cut = dict(rows.interaction)
    for name in (name for name in cut if name.endswith("_list")):
        cut[name] = cut[name][:, : 3 if name.startswith("search_") else 4]
    same(score(model, rows, items[short]), score(model, Interaction(cut), items[short]), "padding")


def scores_do_not_depend_on_the_batch(under_test: ModelUnderTest) -> None:
    """Scores depend neither on the order of a batch, nor on its size, nor on which other candidates there are."""
    model = under_test.build()
    batch, items = under_test.evaluation_batch()
    scores = score(model, batch, items)
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(1))
    shuffled = Interaction({name: values[order] for name, values in batch.interaction.items()})
    same(score(model, shuffled, items[order]), scores[order], "the order of the batch")
    single = [
        score(model, Interaction({n: v[row : row + 1] for n, v in batch.interaction.items()}), items[row : row + 1])
        for row in range(0, len(items), 7)
    ]
    same(torch.cat(single), scores[::7], "the size of the batch")
    same(score(model, batch, items[:, 3:9]), scores[:, 3:9], "the other candidates")


def all_ways_of_scoring_agree(under_test: ModelUnderTest) -> None:
    """``score``, ``predict`` and ``full_sort_predict`` give the same numbers."""
    model = under_test.build()
    batch, items = under_test.evaluation_batch()
    scores = score(model, batch, items)
    with torch.no_grad():
        full = model.full_sort_predict(batch)
        batch.update(Interaction({"item_id": items[:, 5]}))
        same(model.predict(batch), scores[:, 5], "predict instead of score")
    same(full.view(len(items), -1).gather(1, items), scores, "full_sort_predict instead of score")


def nothing_is_remembered_when_training_goes_on(under_test: ModelUnderTest) -> None:
    """Scores after a training step equal those of a model that never scored before it."""
    batch, items = under_test.evaluation_batch()
    results = []
    for scores_before in (True, False):
        model = under_test.build()
        if scores_before:
            score(model, batch, items)
        torch.manual_seed(3)
        train_step(model, under_test.training_batch())
        results.append(score(model, batch, items))
    assert torch.equal(*results), "something computed before the step was still in use after it"


def weights_carry_everything(under_test: ModelUnderTest) -> None:
    """A model with the ``state_dict`` of another one gives the same scores."""
    trained, fresh = under_test.build(), under_test.build()
    train_step(trained, under_test.training_batch())
    batch, items = under_test.evaluation_batch()
    assert not torch.equal(score(trained, batch, items), score(fresh, batch, items)), "a training step changed nothing"
    fresh.load_state_dict(trained.state_dict())
    same(score(fresh.eval(), batch, items), score(trained, batch, items), "loading")


def the_same_seed_gives_the_same_weights(under_test: ModelUnderTest) -> None:
    """After three training steps the weights are the same, bit for bit."""
    states = []
    for _ in range(2):
        model = under_test.build()
        for epoch in range(3):
            train_step(model, under_test.training_batch(epoch=epoch))
        states.append(model.state_dict())
    different = [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]
    assert not different, f"{different} differ between two runs with one seed"


def held_out_events_do_not_reach_training(under_test: ModelUnderTest) -> None:
    """Other items at held-out targets, and other queries and clicks from then on, change no loss and no gradient."""
    first, second = under_test.dataset, under_test.load("altered", with_other_held_out_events(under_test))
    assert torch.equal(first.split.train, second.split.train), "the altered events must not change the instances"
    for name in ("items", "queries", "clicks"):
        assert not torch.equal(getattr(first.log, name), getattr(second.log, name)), f"no other {name}"
    results = []
    for dataset in (first, second):
        model = under_test.build(dataset).train()
        batch = under_test.training_batch(dataset)
        torch.manual_seed(0)
        loss = model.calculate_loss(batch)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append((loss.detach(), gradients))
    same(results[0][0], results[1][0], "held-out events")
    for name, gradient in results[0][1].items():
        if gradient is not None:
            same(gradient, results[1][1][name], f"held-out events (gradient of {name})")


def a_few_users_can_be_overfitted(under_test: ModelUnderTest) -> None:
    """Eight training targets are ranked first among 19 fixed others after at most 300 steps."""
    model = under_test.build()
    batch = under_test.training_batch()
    asked = before_the_last(batch) if model.trains_on == "users" else batch
    rows = torch.arange(len(batch))
    if model.trains_on != "interactions":
        rows = rows[(asked["item_length"] > 0) & (asked["search_length"] > 0)]
    rows = rows[:8]
    few, asked = batch[rows].interaction, asked[rows]
    generator = torch.Generator().manual_seed(2)
    items = torch.randint(1, under_test.dataset.target_num, (len(rows), 20), generator=generator)
    items[items == few["item_id"].unsqueeze(1)] = 0
    items[:, 0] = few["item_id"]
    items = items.clamp(min=1)
    items[:, 1:][items[:, 1:] == items[:, :1]] = under_test.dataset.target_num - 1
    few["neg_item_id"] = items[:, 1:]
    if model.trains_on == "users":  # each position has negatives
        few["neg_item_id"] = items[:, 1:].unsqueeze(1).expand(-1, few["item_id_list"].shape[1], -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        train_step(model, Interaction(few), optimizer)
        scores = score(model, asked, items)
        if (scores[:, :1] > scores[:, 1:]).all():
            return
    raise AssertionError("eight targets could not be learnt by heart")


CHECKS: tuple[Callable[[ModelUnderTest], None], ...] = (
    losses_and_gradients_are_finite,
    scores_are_finite_logits,
    scores_do_not_depend_on_padding,
    scores_do_not_depend_on_the_batch,
    all_ways_of_scoring_agree,
    nothing_is_remembered_when_training_goes_on,
    weights_carry_everything,
    the_same_seed_gives_the_same_weights,
    held_out_events_do_not_reach_training,
    a_few_users_can_be_overfitted,
)


def score(model: SearchRecommender, batch: Interaction, items: Tensor) -> Tensor:
    """The model's logits ``[B, C]`` of ``items [B, C]``, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return model.score(model.encode(batch), items)


def before_the_last(batch: Interaction) -> Interaction:
    """Rows of users without their last item, which is what a model that learnt from these rows should then predict."""
    length = batch["item_length"] - 1
    items = batch["item_id_list"][:, :-1]
    earlier = torch.arange(items.shape[1]) < length.unsqueeze(1)
    return Interaction({**batch.interaction, "item_id_list": items * earlier, "item_length": length})


def train_step(model: SearchRecommender, batch: Interaction, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Train the model on ``batch`` for one step, by default with a new Adam."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    optimizer.zero_grad()
    model.calculate_loss(batch).backward()
    optimizer.step()


def same(first: Tensor, second: Tensor, cause: str) -> None:
    """Check that both are equal up to rounding, relative to the larger of 1 and the values' size."""
    worst = (first - second).abs().max().item()
    assert worst <= TOLERANCE * max(1.0, second.abs().max().item()), f"{cause} changes the result by {worst:.2g}"


def write_random_codes(path: str | Path, dataset: SERDataset) -> None:
    """Write random codes of two levels for the users of ``dataset``; every seventh has none on the search side."""
    search, rec = np.random.default_rng(5).integers(8, size=(2, dataset.user_num - 1, 2))
    search[::7] = -1
    random = {"backend": "random"}
    write_codes(path, dataset, search, rec, {"settings": {}, "summaries": random, "vectors": random})


def write_random_texts(folder: str | Path, dataset: SERDataset, dimension: int = 12) -> None:
    """Write random vectors of the texts of items and users of ``dataset``; every seventh has no text."""
    draws = np.random.default_rng(6)

    def drawn(count: int) -> np.ndarray:
        table = draws.normal(size=(count, dimension)).astype(np.float32)
        table /= np.linalg.norm(table, axis=1, keepdims=True)
        table[::7] = 0.0
        return table

    back_ends = {name: {"backend": "random"} for name in ("items", "users", "vectors")}
    items, users = drawn(dataset.item_num - 1), drawn(dataset.user_num - 1)
    write_text_vectors(folder, dataset, items, users, {"settings": {}, **back_ends})


def with_other_held_out_events(under_test: ModelUnderTest) -> SyntheticLogs:
    """The same logs with other items at the validation and test targets, and other queries and clicks from then on."""
    logs, dataset = under_test.logs, under_test.dataset
    ids = dataset.field2token_id[dataset.uid_field]
    users = np.array([ids[f"u{number}"] for number in logs.user])
    order = np.lexsort((logs.time, users))  # the rows of the file in the order of the event log
    rows = order[torch.cat([dataset.split.valid, dataset.split.test]).numpy()]
    cut = np.full(len(logs.user_level), np.iinfo(np.int64).max)
    np.minimum.at(cut, logs.user[rows], logs.time[rows])
    late = np.flatnonzero(logs.search_time >= cut[logs.search_user])
    clicks = logs.search_clicks
    late_clicks = np.flatnonzero(np.isin(np.repeat(np.arange(len(logs.search_time)), np.diff(clicks.starts)), late))
    return replace(
        logs,
        item=_altered(logs.item, rows),
        search_query=_altered(logs.search_query, late),
        search_clicks=replace(clicks, values=_altered(clicks.values, late_clicks)),
    )


def _altered(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``values`` with each of ``rows`` replaced by the entry before it; first occurrences stay, as ids follow them."""
    _, first = np.unique(values, return_index=True)
    rows = np.setdiff1d(rows, first)
    altered = values.copy()
    altered[rows] = values[rows - 1]
    return altered
