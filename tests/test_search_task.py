"""Instances of the search task, the batches that carry them, and the training of models with more than one phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import load_dataset, write_toy
from recbole.data.interaction import Interaction
from torch import Tensor, nn
from training_fakes import FakeEvalLoader, FakeTrainLoader, Toy, toy_trainer

from recbole_ser import testing
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import JointBatch, TrainLoader
from recbole_ser.data.splits import MINIMUM_TARGETS
from recbole_ser.model.base import JointRecommender, SearchRecommender
from recbole_ser.settings import Weight, setting
from recbole_ser.testing import ModelUnderTest

ITEMS, SEARCHES, CLICKS = 4, 3, 2  # the lengths of conftest.SIZES


class Joint(JointRecommender):
    """The smallest joint model: a vector per user, query and item."""

    class Settings(JointRecommender.Settings):
        search_weight: Weight = setting("of the search task", default=0.5)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.item_vectors = nn.Embedding(dataset.item_num, 4)
        self.user_vectors = nn.Embedding(dataset.user_num, 4)
        self.query_vectors = nn.Embedding(dataset.query_num, 4)

    def encode(self, interaction: Any) -> Tensor:
        return self.user_vectors(interaction[self.USER_ID])

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return (self.item_vectors(items) @ state.unsqueeze(2)).squeeze(2)

    def score_search(self, state: Tensor, queries: Tensor, items: Tensor) -> Tensor:
        return self.score(state + self.query_vectors(queries), items)


class Search(NamedTuple):
    user: str
    query: str
    time: int
    clicks: tuple[str, ...]


class Logs(NamedTuple):
    inter: list[tuple[str, str, int]]
    search: list[Search]

    def load(self, folder: Path, model: Any = Joint, **values: Any) -> SERDataset:
        write_toy(
            folder,
            inter=[f"{user} {item} {time}" for user, item, time in self.inter],
            search=[f"{s.user} {s.query} {s.time} {','.join(s.clicks)}" for s in self.search],
        )
        values = {"require_both_histories": False, "train_batch_size": 16, **values}
        return load_dataset(folder, "toy", model, **values)


def random_logs(seed: int) -> Logs:
    """Many ties in time, users without searches, searches without clicks, items that were only clicked."""
    rng = np.random.default_rng(seed)
    inter = [(f"u{rng.integers(9)}", f"i{rng.integers(40)}", int(rng.integers(25))) for _ in range(130)]
    inter += [("few", "i1", 3), ("few", "i2", 9)]
    search = [
        Search(
            f"u{rng.integers(8)}", f"q{rng.integers(12)}", int(rng.integers(25)),
            tuple(f"i{rng.integers(45)}" for _ in range(rng.integers(4))),
        )
        for _ in range(90)
    ]  # fmt: skip
    return Logs(inter, [*search, Search("few", "q1", 5, ("i3",)), Search("few", "q2", 30, ("i3", "i4"))])


class Known(NamedTuple):
    """A training search with what its user did before it."""

    search: Search
    items: list[str]
    searches: list[Search]


def known_searches(logs: Logs, both: bool) -> Iterator[Known]:
    """The searches of the training period by the rules, user by user and row by row."""
    for user in dict.fromkeys(user for user, _, _ in logs.inter):
        mine = sorted((row for row in logs.inter if row[0] == user), key=lambda row: row[2])
        searched = sorted((search for search in logs.search if search.user == user), key=lambda search: search.time)
        targets = [
            time for number, (_, _, time) in enumerate(mine)
            if not both or (number > 0 and any(search.time < time for search in searched))
        ]  # fmt: skip
        end = targets[-2] if len(targets) >= MINIMUM_TARGETS else float("inf")
        for number, search in enumerate(searched):
            if search.time < end:
                yield Known(search, [item for _, item, time in mine if time < search.time], searched[:number])


def expected_instances(logs: Logs, both: bool) -> Counter:
    return Counter(
        (
            known.search.user,
            known.search.query,
            click,
            tuple(known.items[-ITEMS:]),
            tuple((search.query, search.clicks[:CLICKS]) for search in known.searches[-SEARCHES:]),
        )
        for known in known_searches(logs, both)
        if not both or (known.items and known.searches)
        for click in known.search.clicks[:CLICKS]
    )


def tokens(dataset: SERDataset, field: str, ids: Tensor) -> tuple[str, ...]:
    return tuple(str(token) for token in dataset.id2token(field, ids.numpy()) if token != "[PAD]")


def found_instances(dataset: SERDataset, batches: list[Interaction]) -> Counter:
    found: Counter = Counter()
    for batch in batches:
        for row in range(len(batch)):
            (user,) = tokens(dataset, "user_id", batch["user_id"][row : row + 1])
            (query,) = tokens(dataset, "query_id", batch["query_id"][row : row + 1])
            (item,) = tokens(dataset, "item_id", batch["item_id"][row : row + 1])
            items = tokens(dataset, "item_id", batch["item_id_list"][row])
            queries = tokens(dataset, "query_id", batch["search_query_list"][row])
            clicks = [tokens(dataset, "item_id", clicks) for clicks in batch["search_click_list"][row]]
            assert (int(batch["item_length"][row]), int(batch["search_length"][row])) == (len(items), len(queries))
            found[user, query, item, items, tuple(zip(queries, clicks))] += 1
    return found


def epoch_of(dataset: SERDataset, epoch: int = 0) -> list[Interaction]:
    loader = TrainLoader(dataset.config, dataset)
    loader.set_epoch(epoch)
    return list(loader)


def searches_of(batches: list[Interaction]) -> list[Interaction]:
    return [batch.search for batch in batches if batch.search is not None]


# --- which instances there are --------------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_an_epoch_has_every_instance_of_a_slow_reference_once(tmp_path: Path, seed: int, both: bool) -> None:
    logs = random_logs(seed)
    expected = expected_instances(logs, both)
    dataset = logs.load(tmp_path, require_both_histories=both)
    assert found_instances(dataset, searches_of(epoch_of(dataset))) == expected
    assert len(expected) > 20 and len(dataset.split.search_train) == expected.total()


def test_instances_by_hand(toy: Any) -> None:
    """User a's validation target is at 50; b has no validation target; clicks beyond the second are not read."""
    rows = [
        ("a", "q2", "i3", (), ()),
        ("a", "q2", "x", (), ()),
        ("a", "q1", "i2", ("i1",), (("q2", ("i3", "x")),)),  # i2 and i3, at the search's own time, are not before it
        ("a", "q3", "i6", ("i2", "i3", "i4", "i5"), (("q2", ("i3", "x")), ("q1", ("i2",)), ("q1", ()))),
        ("b", "q2", "x", ("i2",), ()),
    ]
    dataset = toy(Joint, require_both_histories=False)
    assert found_instances(dataset, searches_of(epoch_of(dataset))) == Counter(rows)
    dataset = toy(Joint)
    assert found_instances(dataset, searches_of(epoch_of(dataset))) == Counter(rows[2:4])


@pytest.mark.parametrize(("time", "is_in"), [(29, True), (30, False), (31, False), (90, False)])
def test_a_search_at_or_after_the_validation_target_is_no_instance(tmp_path: Path, time: int, is_in: bool) -> None:
    inter = [("a", f"i{number}", 10 * number) for number in range(1, 5)]  # validated at 30
    logs = Logs([*inter, ("b", "i9", 1)], [Search("a", "q1", time, ("i1",)), Search("b", "q1", 2, ("i2",))])
    dataset = logs.load(tmp_path)
    found = found_instances(dataset, searches_of(epoch_of(dataset)))
    assert {user for user, *_ in found} == ({"a", "b"} if is_in else {"b"})


def test_users_without_a_validation_target_are_entirely_in(tmp_path: Path) -> None:
    dataset = random_logs(0).load(tmp_path)
    found = found_instances(dataset, searches_of(epoch_of(dataset)))
    assert {(query, item) for user, query, item, *_ in found if user == "few"} == {
        ("q1", "i3"), ("q2", "i3"), ("q2", "i4"),
    }  # fmt: skip


# --- batches --------------------------------------------------------------------------------------------------------


def test_batches_of_the_search_task_are_spread_over_the_epoch(tmp_path: Path) -> None:
    dataset = random_logs(1).load(tmp_path)
    batches = epoch_of(dataset)
    sizes = [len(batch.search) for batch in batches]
    assert len(batches) == -(-len(dataset.split.train) // 16) > 3
    assert sum(sizes) == len(dataset.split.search_train) and max(sizes) - min(sizes) <= 1


def test_fewer_instances_than_batches_and_none_at_all(tmp_path: Path) -> None:
    logs = random_logs(1)
    two = logs._replace(search=[Search("u0", "q1", 0, ("i1",)), Search("u1", "q2", 0, ("i2",))])
    batches = epoch_of(two.load(tmp_path / "two"))
    assert sorted(len(batch.search or []) for batch in batches)[-3:] == [0, 1, 1]
    without = logs._replace(search=[search._replace(clicks=()) for search in logs.search])
    batches = epoch_of(without.load(tmp_path / "none"))
    assert batches and all(batch.search is None for batch in batches)


def test_the_search_task_leaves_the_recommendation_batches_as_they_are(tmp_path: Path) -> None:
    logs = random_logs(2)
    with_searches, without = (logs.load(tmp_path, search_weight=weight) for weight in (0.5, 0.0))
    for epoch in (0, 3):
        batches, others = epoch_of(with_searches, epoch), epoch_of(without, epoch)
        assert len(batches) == len(others)
        for batch, other in zip(batches, others):
            assert isinstance(batch, JointBatch) and not isinstance(other, JointBatch)
            assert batch.interaction.keys() == other.interaction.keys()
            assert all(torch.equal(batch[name], other[name]) for name in batch.interaction)


def test_order_and_negatives_are_those_of_seed_and_epoch(tmp_path: Path) -> None:
    logs = random_logs(3)

    def stream(epoch: int, field: str, **values: Any) -> list[int]:
        torch.rand(3)  # the global state does not matter
        parts = [batch[field] for batch in searches_of(epoch_of(logs.load(tmp_path, **values), epoch))]
        return torch.cat(parts).flatten().tolist()

    for field in ("query_id", "neg_item_id"):
        assert stream(4, field) == stream(4, field)
        assert stream(4, field) != stream(5, field)
        assert stream(4, field) != stream(4, field, seed=8)
    assert sorted(stream(4, "query_id")) == sorted(stream(5, "query_id"))


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_negatives_are_what_a_user_neither_trained_on_nor_clicked(tmp_path: Path, distribution: str) -> None:
    logs = random_logs(4)
    dataset = logs.load(tmp_path, train_neg_sample_args={"distribution": distribution, "sample_num": 5})
    log, split, clicks = dataset.log, dataset.split, dataset.training_clicks
    known = {(int(log.users[place]), int(log.items[place])) for place in split.training_interactions}
    clicked = set(zip(clicks.users.tolist(), clicks.items.tolist()))
    held_out = {
        (int(log.users[place]), int(log.items[place])) for place in torch.cat([split.valid, split.test])
    } - known - clicked  # fmt: skip
    drawn: Counter = Counter()
    for epoch in range(30):
        for batch in searches_of(epoch_of(dataset, epoch)):
            assert batch["neg_item_id"].shape == (len(batch), 5)
            users = batch["user_id"].unsqueeze(1).expand(-1, 5)
            drawn.update(zip(users.flatten().tolist(), batch["neg_item_id"].flatten().tolist()))
    assert not drawn.keys() & (known | clicked)
    assert clicked - known, "no pair was only clicked: the test proves nothing about clicks"
    assert drawn.keys() & held_out, "a held-out item that is never drawn gives itself away"
    assert all(1 <= item < dataset.target_num for _, item in drawn)
    if distribution == "popularity":
        trained_on = set(log.items[split.train].tolist())
        assert {item for _, item in drawn} <= trained_on


def test_moving_a_batch_moves_both_parts(tmp_path: Path) -> None:
    (batch, *_) = epoch_of(random_logs(5).load(tmp_path))
    moved = batch.to("meta")
    for part in (moved, moved.search):
        assert {values.device.type for values in part.interaction.values()} == {"meta"}
    assert batch["user_id"].device.type == "cpu", "the batch itself stays"
    assert JointBatch(batch.interaction, None).to("meta").search is None


# --- what may be built from clicks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_clicks_equal_a_slow_reference(tmp_path: Path, seed: int, both: bool) -> None:
    logs = random_logs(seed)
    dataset = logs.load(tmp_path, require_both_histories=both)
    clicks = dataset.training_clicks
    found = zip(
        tokens(dataset, "user_id", clicks.users),
        tokens(dataset, "query_id", clicks.queries),
        tokens(dataset, "item_id", clicks.items),
    )
    expected = [
        (search.user, search.query, click)
        for search, _, _ in known_searches(logs, both)
        for click in search.clicks[:CLICKS]
    ]
    assert list(found) == expected
    assert torch.equal(dataset.log.queries[clicks.searches].long(), clicks.queries)
    assert torch.equal(dataset.log.search_users(clicks.searches), clicks.users)


def test_nothing_planted_at_or_after_a_validation_target_is_in_training(tmp_path: Path) -> None:
    users = range(6)
    inter = [(f"u{user}", f"i{user + number}", 10 * number) for user in users for number in range(1, 6)]
    search = [Search(f"u{user}", f"q{user}", 5 + 10 * number, (f"i{number}",)) for user in users for number in range(4)]
    secrets = [Search(f"u{user}", "secret", time, ("secret", "i1")) for user in users for time in (40, 41, 50, 60)]
    held_out = [(f"u{user}", "late", time) for user in users for time in (40, 50)]
    inter = [row for row in inter if row[2] < 40] + held_out
    dataset = Logs(inter, [*search, *secrets]).load(tmp_path, require_both_histories=True)
    secret_query = dataset.token2id("query_id", "secret")
    secret_items = {dataset.token2id("item_id", item) for item in ("secret", "late")}
    clicks = dataset.training_clicks
    assert len(dataset.split.valid) == len(users) and len(clicks.items) == len(search)
    assert secret_query not in clicks.queries and not secret_items & set(clicks.items.tolist())
    assert not secret_items & set(dataset.log.items[dataset.split.training_interactions].tolist())
    assert secret_query not in dataset.training_search_queries
    for batch in searches_of(epoch_of(dataset)):
        assert secret_query not in batch["query_id"] and secret_query not in batch["search_query_list"]
        seen = torch.cat([batch["item_id"], batch["item_id_list"].flatten(), batch["search_click_list"].flatten()])
        assert not secret_items & set(seen.tolist())


class CountsAllClicks(SearchRecommender):
    """Reads clicks of every search, those of the held-out period too."""

    clicks: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("clicks", torch.bincount(self.counted(dataset), minlength=dataset.item_num).float())

    def counted(self, dataset: Any) -> Tensor:
        return dataset.log.clicks

    def encode(self, interaction: Any) -> None:
        return None

    def score(self, state: None, items: Tensor) -> Tensor:
        return self.clicks[items] * self.weight


class CountsTrainingClicks(CountsAllClicks):
    def counted(self, dataset: Any) -> Tensor:
        return dataset.training_clicks.items


def test_the_contract_notices_a_model_that_counts_held_out_clicks(tmp_path: Path) -> None:
    testing.held_out_events_do_not_reach_training(ModelUnderTest(CountsTrainingClicks, tmp_path))
    with pytest.raises(AssertionError, match="held-out events"):
        testing.held_out_events_do_not_reach_training(ModelUnderTest(CountsAllClicks, tmp_path))


# --- losses of a joint model ----------------------------------------------------------------------------------------


def test_the_losses_of_both_tasks_by_hand(tmp_path: Path) -> None:
    dataset = random_logs(6).load(tmp_path, search_weight=0.25)
    model = Joint(dataset.config, dataset)
    batch, search = (first := epoch_of(dataset)[0]), first.search
    losses = model.losses(batch)
    assert list(losses) == ["rec", "search"]
    torch.testing.assert_close(model.calculate_loss(batch), losses["rec"] + losses["search"])
    queries = model.query_vectors.weight
    for name, rows, weight in (("rec", batch, 1.0), ("search", search, 0.25)):
        pairs = []
        for row in range(len(rows)):
            user = model.user_vectors.weight[rows["user_id"][row]]
            user = user + queries[rows["query_id"][row]] if name == "search" else user
            for item, label in [(rows["item_id"][row], 1.0), *((item, 0.0) for item in rows["neg_item_id"][row])]:
                logit = user @ model.item_vectors.weight[item]
                pairs.append(F.binary_cross_entropy_with_logits(logit, torch.tensor(label)))
        assert len(pairs) == 5 * len(rows)
        torch.testing.assert_close(losses[name], weight * torch.stack(pairs).mean())


def test_a_batch_without_search_instances_has_the_other_losses_alone(tmp_path: Path) -> None:
    dataset = random_logs(6).load(tmp_path)
    model = Joint(dataset.config, dataset)
    batch = epoch_of(dataset)[0]
    expected = model.losses(batch)["rec"]
    for other in (JointBatch(batch.interaction, None), Interaction(batch.interaction)):
        losses = model.losses(other)
        assert list(losses) == ["rec"] and torch.equal(losses["rec"], expected)


class TwoSearchLosses(Joint):
    def search_losses(self, interaction: Any) -> dict[str, Tensor]:
        return {**super().search_losses(interaction), "search_size": self.query_vectors.weight.sum()}


def test_every_loss_of_the_search_task_is_weighted(tmp_path: Path) -> None:
    dataset = random_logs(6).load(tmp_path, TwoSearchLosses, search_weight=0.5)
    model = TwoSearchLosses(dataset.config, dataset)
    losses = model.losses(epoch_of(dataset)[0])
    assert list(losses) == ["rec", "search", "search_size"]
    torch.testing.assert_close(losses["search_size"], 0.5 * model.query_vectors.weight.sum())


# --- epochs and pre-training ----------------------------------------------------------------------------------------


class Watching(Toy):
    """Notes what happens: the number of an epoch when it begins, ``step`` for each batch."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.seen: list[Any] = []

    def begin_epoch(self, epoch: int) -> None:
        assert self.training
        self.seen.append(epoch)

    def main_loss(self, interaction: Any, state: Tensor) -> Tensor:
        self.seen.append("step")
        return super().main_loss(interaction, state)


def test_an_epoch_is_announced_before_its_first_batch_also_when_resumed(tmp_path: Path) -> None:
    first = toy_trainer(tmp_path, Watching, epochs=2)
    first.fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    steps = ["step"] * len(FakeTrainLoader())
    assert first.model.seen == [0, *steps, 1, *steps]
    resumed = toy_trainer(tmp_path, Watching, epochs=4)
    resumed.resume_checkpoint()
    resumed.fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    assert resumed.model.seen == [2, *steps, 3, *steps]


class Pretrained(Toy):
    pretrain_epochs = 5


def validated(trainer: Any, scores: list[float]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl when the validation scores, from the trainer's next epoch on, are ``scores``."""
    left = iter(scores)
    trainer.evaluate = lambda *args, **kwargs: {"mrr": next(left)}
    trainer.fit(FakeTrainLoader(), FakeEvalLoader(), verbose=False)
    return trainer.run_folder.metrics()


def test_early_stopping_does_not_count_epochs_of_pretraining(tmp_path: Path) -> None:
    falling = [0.9 - 0.1 * epoch for epoch in range(9)]
    assert len(validated(toy_trainer(tmp_path / "0", epochs=9, stopping_step=2), falling)) == 4
    lines = validated(toy_trainer(tmp_path / "1", Pretrained, epochs=9, stopping_step=2), falling)
    assert len(lines) == 5 + 3  # after pre-training two worse ones are borne, and the third ends it


def test_a_better_score_after_pretraining_starts_the_count_again(tmp_path: Path) -> None:
    scores = [0.5, 0.4, 0.4, 0.4, 0.4, 0.3, 0.6, 0.1, 0.1, 0.1, 0.9]
    assert len(validated(toy_trainer(tmp_path, Pretrained, epochs=11, stopping_step=2), scores)) == 10


def test_a_run_that_is_resumed_in_pretraining_stops_where_it_would_have(tmp_path: Path) -> None:
    falling = [0.9 - 0.1 * epoch for epoch in range(9)]
    validated(toy_trainer(tmp_path, Pretrained, epochs=4, stopping_step=2), falling[:4])
    resumed = toy_trainer(tmp_path, Pretrained, epochs=9, stopping_step=2)
    resumed.resume_checkpoint()
    assert not resumed.finished
    assert len(validated(resumed, falling[4:])) == 8


def test_the_learning_rate_does_not_fall_for_epochs_of_pretraining(tmp_path: Path) -> None:
    plateau = {"factor": 0.1, "patience": 1, "min_lr": 1e-3}
    scores = [0.5] + [0.1] * 4 + [0.1, 0.1, 0.1, 0.1]
    lines = validated(toy_trainer(tmp_path, Pretrained, epochs=9, learning_rate=1e-2, lr_plateau=plateau), scores)
    # Epoch 5, the first that counts, is the best the plateau has seen; 6 is borne; after 7 the rate falls.
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-2] * 8 + [1e-3])
