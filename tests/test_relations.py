"""Relations against Counter and plain lists."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recbole_ser.data.relations import Relation

COUNT = 7  # key ids, the padding id included

EDGES = st.lists(st.tuples(st.integers(1, COUNT - 1), st.integers(1, 9), st.integers(0, 50)), max_size=40)


def relation(edges: list[tuple[int, int, int]]) -> Relation:
    columns = torch.tensor(edges, dtype=torch.int64).reshape(-1, 3)
    return Relation(columns[:, 0], columns[:, 1], COUNT, columns[:, 2])


def related(edges: list[tuple[int, int, int]], key: int) -> list[tuple[int, int]]:
    """Values and attributes of one key, in the order given."""
    return [(value, attribute) for other, value, attribute in edges if other == key]


def sampled(values: Tensor, attributes: Tensor) -> list[tuple[int, int]]:
    return list(zip(values.flatten().tolist(), attributes.flatten().tolist()))


@settings(deadline=None, max_examples=100)
@given(EDGES)
def test_degrees(edges: list[tuple[int, int, int]]) -> None:
    ids = torch.tensor([[0, 3, 6], [1, 1, 2]])
    expected = [[len(related(edges, key)) for key in row] for row in ids.tolist()]
    assert relation(edges).degree(ids).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(EDGES, st.integers(1, 12))
def test_evaluation_takes_evenly_spaced_relations(edges: list[tuple[int, int, int]], size: int) -> None:
    ids = torch.arange(COUNT)
    values, attributes, exists = relation(edges).sample(ids, size, random=False)
    assert values.shape == attributes.shape == exists.shape == (COUNT, size)
    for key in range(COUNT):
        mine = related(edges, key)
        assert exists[key].tolist() == [bool(mine)] * size
        # The middles of ``size`` equal parts of the list.
        expected = [mine[(2 * part + 1) * len(mine) // (2 * size)] if mine else (0, 0) for part in range(size)]
        assert sampled(values[key], attributes[key]) == expected
        if 0 < len(mine) <= size:
            assert Counter(expected).keys() == set(mine), "with enough room every relation is there"


def test_evaluation_draws_no_random_numbers() -> None:
    edges = [(1, value, 0) for value in range(1, 9)]
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(relation(edges).sample(torch.tensor([1, 1]), 3, random=False)[0])
    assert torch.equal(*results) and torch.equal(results[0][0], results[0][1])


@settings(deadline=None, max_examples=60)
@given(EDGES, st.integers(1, 6), st.integers(0, 1000))
def test_random_relations_are_relations_of_the_key(edges: list[tuple[int, int, int]], size: int, seed: int) -> None:
    torch.manual_seed(seed)
    ids = torch.randint(0, COUNT, (3, 5))
    values, attributes, exists = relation(edges).sample(ids, size, random=True)
    assert values.shape == (3, 5, size) and values.dtype == attributes.dtype == torch.int64
    for row in range(3):
        for column in range(5):
            mine = set(related(edges, int(ids[row, column])))
            assert exists[row, column].tolist() == [bool(mine)] * size
            assert set(sampled(values[row, column], attributes[row, column])) <= (mine or {(0, 0)})


def test_random_relations_are_uniform() -> None:
    edges = [(key, value, 10 * key + value) for key in (1, 3) for value in range(1, 9)] + [(2, 9, 9)]
    torch.manual_seed(0)
    draws = 8000
    values, attributes, _ = relation(edges).sample(torch.tensor([3]), draws, random=True)
    frequency = values.flatten().bincount(minlength=9)[1:].double()
    expected = draws / 8
    # The 99.9 % point of chi-square with 7 degrees of freedom; and the draws are no mere round-robin.
    assert 0.3 < ((frequency - expected) ** 2 / expected).sum() < 24.3
    assert torch.equal(attributes, 30 + values)
    first, second = values.flatten()[:-1], values.flatten()[1:]
    assert abs((first == second).double().mean() - 1 / 8) < 0.02


def test_the_same_seed_draws_the_same_relations() -> None:
    edges = [(1, value, 0) for value in range(1, 9)]
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(relation(edges).sample(torch.tensor([1]), 50, random=True)[0])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@settings(deadline=None, max_examples=100)
@given(EDGES, st.integers(1, 10))
def test_the_most_frequent_equal_a_counter(edges: list[tuple[int, int, int]], width: int) -> None:
    table = relation(edges).most_frequent(width)
    assert table.shape == (COUNT, width) and table.dtype == torch.int64
    for key in range(COUNT):
        counts = Counter(value for value, _ in related(edges, key))
        ranked = sorted(counts, key=lambda value: (-counts[value], value))[:width]
        assert table[key].tolist() == ranked + [0] * (width - len(ranked))


def test_without_any_relation() -> None:
    nothing = relation([])
    ids = torch.tensor([0, 3])
    for random in (True, False):
        values, attributes, exists = nothing.sample(ids, 4, random)
        assert not values.any() and not attributes.any() and not exists.any()
        assert values.shape == attributes.shape == exists.shape == (2, 4)
    assert not nothing.most_frequent(3).any() and nothing.degree(ids).tolist() == [0, 0]


@pytest.mark.parametrize("random", [True, False])
def test_relations_without_attributes_have_attribute_0(random: bool) -> None:
    plain = Relation(torch.tensor([2, 1, 2]), torch.tensor([5, 6, 7]), COUNT)
    values, attributes, _ = plain.sample(torch.tensor([2]), 6, random)
    assert not attributes.any() and set(values.flatten().tolist()) <= {5, 7}


def test_relations_move_with_the_model_and_are_no_weights() -> None:
    one = relation([(1, 2, 3)])
    assert not one.state_dict() and not list(one.parameters())
    assert {buffer.device.type for buffer in one.to("meta").buffers()} == {"meta"}
