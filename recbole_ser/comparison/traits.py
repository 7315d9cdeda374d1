"""What test targets differ in, so that one can ask where a model gains.

The searches and the history of a user are those before the user's first test target: only these can a model have read
for all of them.  Everything else is said of each target by itself, so a user with several may be in several groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import ConfigError
from recbole_ser.evaluation.groups import quantile_groups


@dataclass(frozen=True)
class Trait:
    """A division of the test targets into groups.

    Args:
        title: what the groups differ in, in words.
        labels: the name of each group.
        group: ``[n]``, the group of each test target, numbered as in ``labels``.
    """

    title: str
    labels: list[str]
    group: np.ndarray


@dataclass(frozen=True)
class TargetTraits:
    """The traits by which the test targets of a data set can be divided.

    Args:
        dataset: the data set.
        number: the number of groups, of about the same size, by a number.
        spontaneous: sources of searches that users typed of their own accord; every other search is passive.  Empty:
            the sources themselves are the groups.
    """

    dataset: SERDataset
    number: int
    spontaneous: Sequence[str] = ()

    @property
    def positions(self) -> np.ndarray:
        """int64 ``[n]``, the targets as positions in the log's interactions."""
        return self.dataset.split.test.long().numpy()

    def searches(self) -> Trait:
        return self._of_users("the searches before the (first) target", self.dataset.log.search_length.numpy())

    def history(self) -> Trait:
        return self._of_users("the interactions before the (first) target", self.dataset.log.rec_length.numpy())

    def popularity(self) -> Trait:
        return self._by_number("the training interactions of the item", self._training_counts())

    def repeat(self) -> Trait:
        """Whether the user interacted with the item before, by position in the log."""
        log = self.dataset.log
        pairs = log.users.numpy().astype(np.int64) * self.dataset.item_num + log.items.numpy()
        is_first = np.zeros(len(pairs), dtype=bool)
        is_first[np.unique(pairs, return_index=True)[1]] = True
        group = is_first[self.positions].astype(np.int64)
        return Trait("whether the user had interacted with the item before", ["repeat", "new"], group)

    def cold(self) -> Trait:
        group = self._training_counts() == 0
        return Trait("whether the item has training interactions", ["warm", "cold"], group.astype(np.int64))

    def search_kind(self) -> Trait:
        """The kind of the last search before the target.

        Raises:
            ConfigError: the data do not say where searches came from, or no search has one of ``spontaneous``.
        """
        dataset, log = self.dataset, self.dataset.log
        tokens = dataset.field2token_id.get(dataset.source_field, {})
        known = {name: source for name, source in tokens.items() if source}  # 0 is padding, and a missing source
        if not known:
            raise ConfigError(f"--by search-kind: the searches of data set '{dataset.dataset_name}' have no source")
        for name in self.spontaneous:
            if name not in known:
                raise ConfigError(f"--spontaneous: no search has the source '{name}': there are {', '.join(known)}")
        if self.spontaneous:
            labels, places = ["spontaneous", "passive"], dict.fromkeys(self.spontaneous, 0)
        else:
            labels = [*sorted(known), "no source"]
            places = {name: number for number, name in enumerate(sorted(known))}
        kinds = np.full(dataset.source_num, len(labels) - 1)  # of each source, numbered as in ``labels``
        for name, number in places.items():
            kinds[known[name]] = number
        positions = self.positions
        last = log.sources.numpy()[log.searches_before.numpy()[positions] - 1]
        group = np.where(log.search_length.numpy()[positions] > 0, kinds[last], len(labels))
        used, group = np.unique(group, return_inverse=True)
        return Trait("the kind of the last search before the target", [[*labels, "no search"][n] for n in used], group)

    def _training_counts(self) -> np.ndarray:
        """``[n]``, how many training interactions the item of each target has."""
        items = self.dataset.log.items.numpy()
        counts = np.bincount(items[self.dataset.split.training_interactions.numpy()], minlength=self.dataset.item_num)
        return counts[items[self.positions]]

    def _of_users(self, title: str, counts: np.ndarray) -> Trait:
        """Groups by ``counts [interactions]`` at the first test target of the user of each target."""
        users = self.dataset.log.users.numpy()[self.positions]
        first, user = np.unique(users, return_index=True, return_inverse=True)[1:]
        return self._by_number(title, counts[self.positions][first][user])

    def _by_number(self, title: str, counts: np.ndarray) -> Trait:
        """Groups of about the same number of users' first targets by ``counts [n]``."""
        first = np.unique(self.dataset.log.users.numpy()[self.positions], return_index=True)[1]
        groups = quantile_groups(counts[first], self.number)
        return Trait(title, groups.labels, groups.of(counts))


TRAITS: dict[str, Callable[[TargetTraits], Trait]] = {
    "searches": TargetTraits.searches,
    "history": TargetTraits.history,
    "popularity": TargetTraits.popularity,
    "repeat": TargetTraits.repeat,
    "cold": TargetTraits.cold,
    "search-kind": TargetTraits.search_kind,
}
