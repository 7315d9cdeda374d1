"""JSR against a slow reference, and what its docstring promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_fakes import assert_equals_reference
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ser.data.loader import JointBatch
from recbole_ser.errors import ConfigError
from recbole_ser.model.search_aware.jsr import JSR
from recbole_ser.testing import CHECKS, ModelUnderTest

CONFIG: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "device": "cpu", "MAX_ITEM_LIST_LENGTH": 6,
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "hidden_size": 8, "n_layers": 2, "n_heads": 2, "dropout_prob": 0.0, "mlp_hidden_size": [14, 10],
    "search_weight": 0.25,
}  # fmt: skip
HISTORIES = [[3, 4, 5, 6, 7, 8], [10], [12, 13, 14], [], [19, 20, 21, 22]]
CANDIDATES = [[9, 2, 3, 4], [11, 5, 6, 7], [15, 8, 9, 1], [18, 1, 3, 5], [23, 4, 8, 12]]
QUERIES = [2, 11, 7]
CLICKED = [[5, 8, 9, 2], [6, 2, 11, 7], [28, 4, 9, 1]]


def fake_dataset() -> SimpleNamespace:
    generator = torch.Generator().manual_seed(1)
    terms = torch.randint(0, 15, (12, 4), generator=generator, dtype=torch.int32).sort(dim=1, descending=True).values
    level = torch.randint(0, 4, (30,), generator=generator, dtype=torch.int32)
    terms[0], level[0] = 0, 0
    return SimpleNamespace(
        user_num=10, item_num=30, target_num=30, query_num=12, term_num=15, num={"item_id": 30, "level": 4}.__getitem__,
        query_terms=terms, item_attributes={"level": level}, item_numbers={},
    )  # fmt: skip


def batch(histories: list[list[int]] = HISTORIES, items: list[list[int]] = CANDIDATES, length: int = 6) -> Interaction:
    padded = torch.zeros(len(histories), length, dtype=torch.int64)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = torch.tensor(history)
    return Interaction(
        {
            "user_id": torch.arange(1, len(histories) + 1),
            "item_id": torch.tensor(items)[:, 0],
            "neg_item_id": torch.tensor(items)[:, 1:],
            "item_id_list": padded,
            "item_length": torch.tensor([len(history) for history in histories]),
        }
    )


def joint() -> JointBatch:
    search = batch([[1, 2], [], [3]], CLICKED)
    search.update(Interaction({"query_id": torch.tensor(QUERIES)}))
    return JointBatch(batch().interaction, search)


def build(**values: Any) -> JSR:
    """A model with weights so large that nothing in it is nearly linear or nearly zero."""
    torch.manual_seed(0)
    model = JSR({**CONFIG, **values}, fake_dataset())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.dim() == 1 else 0.4))
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model


class Reference:
    """JSR one position and one candidate at a time, from weights by name."""

    def __init__(self, model: JSR) -> None:
        self.weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
        self.dataset = fake_dataset()

    def linear(self, name: str, vector: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ vector + self.weights[f"{name}.bias"]

    def entity(self, name: str, number: int, values: Tensor) -> Tensor:
        table = self.weights[f"{name}.attributes.0.table.weight"]
        present = [table[int(value)] for value in values.reshape(-1) if value != 0]
        mean = sum(present) / len(present) if present else torch.zeros_like(table[0])
        return self.linear(f"{name}.projection", torch.cat([self.weights[f"{name}.ids.weight"][number], mean]))

    def item(self, number: int) -> Tensor:
        return self.entity("items", number, self.dataset.item_attributes["level"][number])

    def query(self, number: int) -> Tensor:
        return self.entity("queries", number, self.dataset.query_terms[number])

    def norm(self, name: str, vector: Tensor) -> Tensor:
        centred = vector - vector.mean()
        scaled = centred / (centred.square().mean() + 1e-8).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, name: str, state: Tensor, seen: list[Tensor]) -> Tensor:
        width, size = CONFIG["hidden_size"], CONFIG["hidden_size"] // CONFIG["n_heads"]
        own, projected = self.linear(f"{name}.input", state), [self.linear(f"{name}.input", other) for other in seen]
        mixed = []
        for start in range(0, width, size):
            query, keys = own[start : start + size], [p[width + start : width + start + size] for p in projected]
            powers = [torch.exp(query @ key / math.sqrt(size)) for key in keys]
            values = [p[2 * width + start : 2 * width + start + size] for p in projected]
            mixed.append(sum(power * value for power, value in zip(powers, values)) / sum(powers))
        return self.linear(f"{name}.output", torch.cat(mixed))

    def user(self, history: list[int]) -> Tensor:
        if not history:
            return torch.zeros(CONFIG["hidden_size"], dtype=self.weights["positions.weight"].dtype)
        states = [self.item(item) + self.weights["positions.weight"][place] for place, item in enumerate(history)]
        for number in range(CONFIG["n_layers"]):
            name = f"backbone.layers.{number}"
            normed = [self.norm(f"{name}.attention_norm", state) for state in states]
            states = [
                state + self.attention(f"{name}.attention", normed[place], normed[: place + 1])
                for place, state in enumerate(states)
            ]
            inner = [self.linear(f"{name}.network.0", self.norm(f"{name}.network_norm", state)) for state in states]
            states = [s + self.linear(f"{name}.network.2", i.clamp(min=0)) for s, i in zip(states, inner)]
        return self.norm("backbone.norm", states[-1])

    def score(self, task: str, vector: Tensor, item: int) -> Tensor:
        hidden = vector * self.item(item)
        for layer in (0, 3):
            hidden = self.linear(f"{task}_scorer.{layer}", hidden).clamp(min=0)
        return self.linear(f"{task}_scorer.6", hidden)[0]

    def cross_entropy(self, task: str, vectors: list[Tensor], items: list[list[int]]) -> Tensor:
        pairs = []
        for vector, row in zip(vectors, items):
            scores = [self.score(task, vector, item) for item in row]
            pairs += [torch.log1p(torch.exp(-scores[0])), *(torch.log1p(torch.exp(score)) for score in scores[1:])]
        return sum(pairs) / len(pairs)

    def losses(self) -> dict[str, Tensor]:
        search = self.cross_entropy("search", [self.query(query) for query in QUERIES], CLICKED)
        rec = self.cross_entropy("rec", [self.user(history) for history in HISTORIES], CANDIDATES)
        return {"rec": rec, "search": CONFIG["search_weight"] * search}


def test_scores_of_both_tasks_equal_the_reference() -> None:
    model = build().double()
    slow = Reference(model)
    scores = model.score(model.encode(batch()), torch.tensor(CANDIDATES))
    found = model.score_search(model.encode_search(joint().search), torch.tensor(QUERIES), torch.tensor(CLICKED))
    for row, history in enumerate(HISTORIES):
        wanted = [slow.score("rec", slow.user(history), item) for item in CANDIDATES[row]]
        torch.testing.assert_close(scores[row], torch.stack(wanted))
    for row, query in enumerate(QUERIES):
        wanted = [slow.score("search", slow.query(query), item) for item in CLICKED[row]]
        torch.testing.assert_close(found[row], torch.stack(wanted))
    assert (found - found[:, :1])[:, 1:].abs().min() > 1e-4, "candidates score the same"
    assert (scores[3] == scores[3, 0]).all(), "without history all items score the same"


def test_losses_and_all_gradients_equal_the_reference() -> None:
    model = build().double().train()
    slow = Reference(model)
    losses, expected = model.losses(joint()), slow.losses()
    assert_equals_reference(model, losses, expected, slow.weights)


def test_the_search_task_teaches_the_items_and_not_what_encodes_users() -> None:
    model = build().train()
    model.losses(joint())["search"].backward()
    touched = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert model.items.ids.weight.grad[28].abs().sum() > 0  # the positive of a search, in no history or target
    assert {name.split(".")[0] for name in touched} == {"items", "queries", "search_scorer"}


def test_the_search_weight_scales_the_search_loss_alone() -> None:
    light, heavy = (build(search_weight=weight).losses(joint()) for weight in (0.25, 1.0))
    torch.testing.assert_close(light["search"], heavy["search"] * 0.25)
    torch.testing.assert_close(light["rec"], heavy["rec"])


def test_without_search_instances_there_is_the_loss_of_recommendation_alone() -> None:
    model = build().train()
    losses = model.losses(JointBatch(batch().interaction, None))
    torch.testing.assert_close(losses, {"rec": model.losses(joint())["rec"]})
    losses["rec"].backward()
    assert all(value.grad is None or not value.grad.any() for value in model.queries.parameters())


def test_what_search_alone_would_train_is_frozen_without_its_task() -> None:
    frozen = {name.split(".")[0] for name, v in build(search_weight=0.0).named_parameters() if not v.requires_grad}
    assert frozen == {"queries", "search_scorer"}
    assert all(parameter.requires_grad for parameter in build().parameters())


def test_a_state_knows_nothing_of_later_items() -> None:
    model = build().eval()
    with torch.no_grad():
        short = model.encode(batch([[3, 4, 5]], CANDIDATES[:1]))
        states = model.items(torch.tensor([[3, 4, 5, 6]])) + model.positions.weight[:4]
        mask = torch.ones(1, 4, 4, dtype=torch.bool).tril()
        torch.testing.assert_close(model.backbone(states, mask)[:, 2], short)
        assert (model.encode(batch([[3, 4, 5, 6]], CANDIDATES[:1])) - short).abs().max() > 1e-3
        assert (model.encode(batch([[4, 3, 5]], CANDIDATES[:1])) - short).abs().max() > 1e-3


def test_losses_do_not_depend_on_padding() -> None:
    model = build(MAX_ITEM_LIST_LENGTH=9).double()
    torch.testing.assert_close(model.losses(batch(length=6)), model.losses(batch(length=9)))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="n_heads"):
        build(n_heads=3)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("values", [{"search_weight": 0.0}, {"n_layers": 1, "mlp_hidden_size": [16]}], ids=str)
def test_variants_keep_the_contract(
    values: dict[str, Any], check: Callable[[ModelUnderTest], None], tmp_path: Path
) -> None:
    check(ModelUnderTest(JSR, tmp_path, values))
