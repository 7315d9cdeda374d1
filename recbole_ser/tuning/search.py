"""Which configuration is tried next: every one of a grid, any, or one like those that were good so far."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from recbole_ser.errors import UserError
from recbole_ser.tuning.plan import Plan
from recbole_ser.tuning.space import Dimension, grid


class Search(Protocol):
    """Proposes configurations.  What it proposes is recorded elsewhere: a resumed sweep asks only for new ones."""

    def propose(self, number: int) -> dict[str, Any]:
        """The values of trial ``number`` (from 0)."""

    def observe(self, values: dict[str, Any], score: float) -> None:
        """A trial with ``values`` has ended; ``score``, the bigger the better, is its best validation metric."""


def build_search(plan: Plan, seed: int, recorded: int) -> Search:
    """The search of ``plan``, of whose trials ``recorded`` were proposed in an earlier session.

    Raises:
        UserError: ``tpe`` without Optuna.
    """
    if plan.search == "grid":
        return Grid(plan)
    return Random(plan, seed) if plan.search == "random" else Tpe(plan, seed + recorded)


class Grid:
    """Every combination of listed values."""

    def __init__(self, plan: Plan) -> None:
        self.points = grid(plan.space, plan.name)

    def propose(self, number: int) -> dict[str, Any]:
        return self.points[number]

    def observe(self, values: dict[str, Any], score: float) -> None:
        """A grid does not learn."""


class Random:
    """Independent draws; trial ``number`` has the same values however many trials there are."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.space, self.seed = plan.space, seed

    def propose(self, number: int) -> dict[str, Any]:
        generator = np.random.default_rng([self.seed, number])
        return {dimension.key: dimension.draw(generator) for dimension in self.space}

    def observe(self, values: dict[str, Any], score: float) -> None:
        """Random search does not learn."""


class Tpe:
    """Optuna's tree-structured Parzen estimator (Bergstra et al., NIPS'11).

    Raises:
        UserError: Optuna is not installed.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise UserError('--search=tpe needs Optuna: pip install "recbole_ser[tune]"') from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.distributions = {dimension.key: _distribution(optuna, dimension) for dimension in plan.space}
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._create_trial = optuna.trial.create_trial

    def propose(self, number: int) -> dict[str, Any]:
        return dict(self.study.ask(self.distributions).params)

    def observe(self, values: dict[str, Any], score: float) -> None:
        if math.isfinite(score):
            done = self._create_trial(params=values, distributions=self.distributions, value=score)
            self.study.add_trial(done)


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    kinds = optuna.distributions
    if dimension.kind == "choice":
        return kinds.CategoricalDistribution(dimension.values)
    if dimension.kind == "integer":
        return kinds.IntDistribution(*dimension.values)
    return kinds.FloatDistribution(*dimension.values, log=dimension.kind == "loguniform")
