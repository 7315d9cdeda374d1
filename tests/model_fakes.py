"""What the tests of single models share: small sizes, a data set without files, and rows with every kind of history."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from recbole.data.interaction import Interaction
from reference.sesrec_reference import Row, Search
from torch import Tensor, nn

from recbole_ser.model.layers import TransformerLayer

SIZES: dict[str, Any] = {
    "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_",
    "ITEM_LIST_LENGTH_FIELD": "item_length", "device": "cpu",
    "MAX_ITEM_LIST_LENGTH": 6, "max_search_length": 5, "max_clicks_per_search": 3,
    "embedding_size": 5, "item_attribute_size": 3, "query_embedding_size": 4, "term_embedding_size": 3,
    "user_embedding_size": 4, "user_attribute_size": 2, "hidden_size": 8, "n_layers": 2, "n_heads": 2,
    "dropout_prob": 0.0, "mlp_hidden_size": [24, 16],
}  # fmt: skip


def fake_dataset(items: int = 30, queries: int = 12, terms: int = 15) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(1)

    def lists(count: int, width: int, high: int) -> Tensor:
        values = torch.randint(1, high, (count, width), generator=generator, dtype=torch.int32)
        lengths = torch.randint(0, width + 1, (count, 1), generator=generator)
        lengths[0] = 0
        return values * (torch.arange(width) < lengths)

    vocabulary = {"item_id": items, "type": 5, "tags": 7, "level": 4}
    return SimpleNamespace(
        user_num=10, item_num=items, target_num=items, query_num=queries, term_num=terms, source_num=3,
        query_terms=lists(queries, 4, terms), num=vocabulary.__getitem__,
        item_attributes={"type": lists(items, 1, 5)[:, 0], "tags": lists(items, 3, 7)},
        user_attributes={"level": lists(10, 1, 4)[:, 0]},
        item_numbers={}, user_numbers={},
        training_search_queries=torch.tensor([1, 1, 2, 3, 3, 3, 5, 8], dtype=torch.int32),
    )  # fmt: skip


ROWS = [
    Row(1, [3, 4, 5, 6, 7, 8], [Search(1, [4], 1), Search(2, [5, 9], 2), Search(1, [], 1), Search(3, [4, 5, 6], 2),
                                Search(4, [11], 1)], [9, 2, 3, 4]),
    Row(2, [10], [Search(5, [12], 1)], [11, 5, 6, 7]),
    Row(3, [12, 13, 14], [], [15, 8, 9, 1]),
    Row(4, [], [Search(2, [5], 2), Search(6, [17], 1)], [16, 2, 4, 6]),
    Row(5, [], [], [18, 1, 3, 5]),
    Row(6, [19, 20, 21, 22], [Search(7, [20, 4], 2), Search(1, [4], 2), Search(2, [], 1)], [23, 4, 8, 12]),
    Row(1, [3, 4], [Search(8, [24], 1), Search(9, [25], 2), Search(2, [5], 2), Search(10, [4], 1)], [26, 7, 8, 9]),
]  # fmt: skip


def interaction(rows: list[Row], length: int = 6, searches: int = 5, clicks: int = 3) -> Interaction:
    batch = {
        "user_id": torch.tensor([row.user for row in rows]),
        "item_id": torch.tensor([row.candidates[0] for row in rows]),
        "neg_item_id": torch.tensor([row.candidates[1:] for row in rows]),
        "item_id_list": torch.zeros(len(rows), length, dtype=torch.int64),
        "item_length": torch.tensor([len(row.items) for row in rows]),
        "search_query_list": torch.zeros(len(rows), searches, dtype=torch.int64),
        "search_source_list": torch.zeros(len(rows), searches, dtype=torch.int64),
        "search_click_list": torch.zeros(len(rows), searches, clicks, dtype=torch.int64),
        "search_length": torch.tensor([len(row.searches) for row in rows]),
    }
    for number, row in enumerate(rows):
        batch["item_id_list"][number, : len(row.items)] = torch.tensor(row.items)
        for place, search in enumerate(row.searches):
            batch["search_query_list"][number, place] = search.query
            batch["search_source_list"][number, place] = search.source
            batch["search_click_list"][number, place, : len(search.clicks)] = torch.tensor(search.clicks)
    return Interaction(batch)


def candidates(rows: list[Row]) -> Tensor:
    return torch.tensor([row.candidates for row in rows])


def assert_equals_reference(
    model: nn.Module,
    losses: dict[str, Tensor],
    expected: dict[str, Tensor],
    weights: dict[str, Tensor],
    every_gradient: bool = True,
) -> None:
    """Named losses in double precision, and the gradient of their sum with respect to every trained parameter.

    ``weights`` are those of the reference, by the names of the model's parameters.  With ``every_gradient`` none of
    the gradients may be zero.
    """
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    torch.stack(list(losses.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            wanted = weights[name].grad
            torch.testing.assert_close(parameter.grad, wanted, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
            assert not every_gradient or parameter.grad.abs().sum() > 0, f"{name} gets no gradient"


def assert_dropout_inside(model: nn.Module) -> None:
    """Half of the units inside every position-wise network of a model with a dropout of 0.5 are dropped in training."""
    layers = [module for module in model.train().modules() if isinstance(module, TransformerLayer)]
    assert layers
    for layer in layers:
        inside = layer.network[1](torch.ones(10_000))
        assert 0.45 < (inside == 0).double().mean() < 0.55 and 0.95 < inside.mean() < 1.05
        assert layer.network[1].eval()(torch.ones(10)).eq(1).all()


def give_texts(dataset: SimpleNamespace, without_items: tuple[int, ...], without_users: tuple[int, ...]) -> Any:
    """``dataset`` with vectors of six numbers for the texts of all items and users but these."""
    generator = torch.Generator().manual_seed(4)
    for name, count, without in (
        ("item_texts", dataset.item_num, without_items), ("user_texts", dataset.user_num, without_users),
    ):  # fmt: skip
        vectors = nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=1)
        vectors[[0, *without]] = 0
        setattr(dataset, name, SimpleNamespace(vectors=vectors))
    return dataset
