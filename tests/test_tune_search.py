"""Which configurations a search proposes: each of a grid once, any, or ones like those that were good so far."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recbole_ser.errors import UserError
from recbole_ser.tuning.plan import Plan
from recbole_ser.tuning.search import Grid, Random, Search, Tpe, build_search
from recbole_ser.tuning.space import grid, read_space

SPACE = {
    "alpha": {"loguniform": [1e-6, 1.0]},
    "beta": {"uniform": [-1, 1]},
    "n_layers": {"integer": [1, 50]},
    "split_threshold": {"choice": ["mean", "median", 0.5]},
}
ONE = {"x": {"loguniform": [1e-6, 1.0]}}


def plan_of(space: dict[str, Any], **options: Any) -> Plan:
    return Plan("mine", read_space(space, "mine"), **options)


def in_range(values: dict[str, Any]) -> bool:
    inside = 1e-6 <= values["alpha"] <= 1 and -1 <= values["beta"] <= 1 and 1 <= values["n_layers"] <= 50
    types = type(values["alpha"]) is type(values["beta"]) is float and type(values["n_layers"]) is int
    return list(values) == list(SPACE) and inside and types and values["split_threshold"] in ("mean", "median", 0.5)


# --- random -----------------------------------------------------------------------------------------------------------


def test_a_random_trial_has_the_same_values_whatever_was_proposed_before() -> None:
    straight = Random(plan_of(SPACE, trials=30), 7)
    expected = [straight.propose(number) for number in range(30)]
    assert all(map(in_range, expected))
    for count in (1, 10, 1000):
        search = Random(plan_of(SPACE, trials=count), 7)
        for number in (29, 3, 0, 3, 17):
            assert search.propose(number) == expected[number]
            search.observe(expected[number], 1.0)
    assert build_search(plan_of(SPACE), 7, 12).propose(12) == expected[12], "also in a later session"


def test_random_trials_differ_and_so_do_seeds() -> None:
    values = [Random(plan_of(SPACE), seed).propose(number)["alpha"] for seed in range(10) for number in range(10)]
    assert len(set(values)) == 100, "no trial of one seed is one of another's"


def test_random_keys_are_independent() -> None:
    search = Random(plan_of({key: {"uniform": [0, 1]} for key in "ab"}), 1)
    points = np.array([list(search.propose(number).values()) for number in range(300)])
    assert abs(np.corrcoef(points.T)[0, 1]) < 0.15
    assert np.all(np.abs(points.mean(0) - 0.5) < 0.05)


# --- grid -------------------------------------------------------------------------------------------------------------


def test_a_grid_proposes_every_point_once() -> None:
    plan = plan_of({"a": {"choice": [3, 1]}, "b": {"integer": [0, 4]}}, search="grid", trials=10)
    search = build_search(plan, 7, 4)
    assert isinstance(search, Grid)
    search.observe({"a": 3, "b": 0}, 0.5)
    assert [search.propose(number) for number in range(10)] == grid(plan.space, "mine")
    assert {tuple(search.propose(number).values()) for number in range(10)} == {
        (a, b) for a in (1, 3) for b in range(5)
    }


# --- tpe --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tpe() -> Callable[..., Search]:
    pytest.importorskip("optuna", reason="Optuna is not installed (extra tune)")
    return lambda space, seed, recorded=0: build_search(plan_of(space, search="tpe"), seed, recorded)


def distance(values: dict[str, Any]) -> float:
    """In decades, from the planted optimum."""
    return abs(math.log10(values["x"]) + 3)


def distances(search: Search, count: int, score: Callable[[dict[str, Any]], float]) -> list[float]:
    found = []
    for number in range(count):
        values = search.propose(number)
        search.observe(values, score(values))
        found.append(distance(values))
    return found


def test_tpe_stays_in_range(tpe: Callable[..., Search]) -> None:
    search = tpe(SPACE, 7)
    assert isinstance(search, Tpe)
    for number in range(40):
        values = search.propose(number)
        assert in_range(values)
        search.observe(values, values["beta"])


def test_tpe_learns(tpe: Callable[..., Search]) -> None:
    """Later proposals are nearer to the best value than random ones are, and than the first ones, which are random."""
    first, later, random = [], [], []
    for seed in range(6):
        found = distances(tpe(ONE, seed), 40, lambda values: -(distance(values) ** 2))
        first, later = first + found[:10], later + found[20:]
        random += distances(Random(plan_of(ONE), seed), 20, lambda values: 0.0)
    assert np.mean(later) < 0.8 * np.mean(random) and np.mean(later) < 0.8 * np.mean(first)


def test_tpe_learns_from_trials_of_an_earlier_session(tpe: Callable[..., Search]) -> None:
    near, far = [], []
    for seed in range(6):
        for optimum, found in [(-3, near), (0, far)]:
            search = tpe(ONE, seed, 25)
            for exponent in np.linspace(-6, 0, 25):
                search.observe({"x": float(10**exponent)}, -((exponent - optimum) ** 2))
            found += [distance(search.propose(number)) for number in range(25, 30)]
    assert np.mean(near) < 0.9 and np.mean(far) > 1.5


def test_tpe_ignores_scores_that_are_no_numbers(tpe: Callable[..., Search]) -> None:
    plain, disturbed = tpe(ONE, 3), tpe(ONE, 3)
    for number in range(25):
        values = plain.propose(number)
        assert disturbed.propose(number) == values
        plain.observe(values, -distance(values))
        disturbed.observe(values, -distance(values))
        for score in (math.nan, math.inf, -math.inf):
            disturbed.observe({"x": 1.0}, score)


def test_tpe_proposes_the_same_for_the_same_seed_and_another_in_a_later_session(tpe: Callable[..., Search]) -> None:
    def proposed(seed: int, recorded: int) -> list[float]:
        search = tpe(ONE, seed, recorded)
        return [search.propose(number)["x"] for number in range(5)]

    assert proposed(3, 0) == proposed(3, 0)
    assert len({*proposed(3, 0), *proposed(3, 5), *proposed(4, 0)}) == 15


def test_tpe_needs_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError) as error:
        build_search(plan_of(SPACE, search="tpe"), 7, 0)
    assert str(error.value) == '--search=tpe needs Optuna: pip install "recbole_ser[tune]"'
    for kind in ("random", "grid"):
        build_search(plan_of({"a": {"choice": [1]}}, search=kind), 7, 0)
