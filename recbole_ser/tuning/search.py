"""Which configuration is tried next: the next of a grid, a random one, or one like those that were good so far."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from recbole_ser.errors import UserError
from recbole_ser.tuning.plan import Plan
from recbole_ser.tuning.space import Dimension, grid


class Search(Protocol):
    """Proposes configurations.  They are recorded elsewhere: a resumed sweep only asks for those it does not have."""

    def propose(self, number: int) -> dict[str, Any]:
        """The values of trial ``number`` (from 0)."""

    def observe(self, values: dict[str, Any], score: float) -> None:
        """Take note of a trial that has ended: its ``values``, and its best validation metric (bigger is better)."""


def build_search(plan: Plan, seed: int, recorded: int) -> Search:
    """The search of ``plan``.

    Args:
        recorded: number of trials that were proposed before the sweep was resumed.

    Raises:
        UserError: the search is ``tpe`` and Optuna is not installed.
    """
    if plan.search == "grid":
        return Grid(plan)
    return Random(plan, seed) if plan.search == "random" else Tpe(plan, seed + recorded)


class Grid:
    """Every combination of the listed values, in order."""

    def __init__(self, plan: Plan) -> None:
        self.points = grid(plan.space, plan.name)

    def propose(self, number: int) -> dict[str, Any]:
        return self.points[number]

    def observe(self, values: dict[str, Any], score: float) -> None:
        """A grid does not learn."""


class Random:
    """Independent draws; the values of trial ``number`` do not depend on how many trials there are."""

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
