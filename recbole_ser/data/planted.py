"""Logs in which searches often decide the next item.

Items and queries belong to topics: item ``i`` to topic ``i % topics``, query ``q`` to topic ``q % topics``; the
quotient is the popularity rank there, 0 the most popular.  A user's next item comes from the first rule that applies:

1.  with probability ``follow``: the topic of the user's latest informative search, by popularity, if that search is
    strictly before this interaction and not before the previous one;
2.  with probability ``stay``: the sequel of the previous item, which is the one of the next rank in its topic;
3.  with probability ``taste``: a topic that the user's community likes, by popularity;
4.  any topic, by popularity: noise.

An item that the user already has is drawn again, from the same topic as long as that helps.

Topics of searches come from rules 3 and 4 alone, so what precedes a search says little about what follows it.  Topic
``t`` is liked by community ``t % communities``, and users of one community have the same taste however often they
search; without communities there is no rule 3.

A search comes shortly before an interaction.  A share ``noise`` of the searches decides nothing; most of these are from
the last source.  A share ``tied`` has the time of the interaction itself, for which it is too late.  A query has two
words of its topic and others that any topic uses; so has the title of an item.  The clicks of a search are items of the
query's topic, but not the one that the user interacts with next.  Users search often, seldom or never.

With ``mirrored`` the searches are those of the Amazon data sets instead: each item has one query, and a search is the
event of an interaction, with its time and with its item as the only click.

The result is a function of the specification alone, to the byte: draws come from the raw output of PCG64, which NumPy
keeps the same in every version, and all arithmetic on them is exact or correctly rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.errors import ConfigError

SEARCH_LEVELS = ("rich", "sparse", "none")
SEARCH_RATES = np.array([1.0, 0.2, 0.0])  # searches per interaction at each level, relative to the first
MIN_INTERACTIONS = 5
TOPICS_PER_CATEGORY = 4
COMMON_TERMS = 0.2  # share of the vocabulary that belongs to no topic


@dataclass(frozen=True)
class SyntheticSpec:
    """What to generate.

    Attributes:
        users, items, queries, interactions, searches: exact counts.  Every user has at least 5 interactions, all of
            different items; every item has an interaction and every query a search.
        terms: size of the vocabulary of the queries.
        topics: number of topics.  The module says what they are, and explains ``noise``, ``follow``, ``stay``,
            ``communities``, ``taste`` and ``mirrored``.
        sources: number of different sources of searches.
        max_clicks: the largest number of clicks of one search.
        max_terms: the largest number of words of one query, at least 2.
        start, span, granularity: first possible timestamp, length of the log, and the step of all timestamps from
            ``start`` on; in the unit of the files.
        length_skew, popularity_skew: the smaller these are, the longer are the tails of the numbers of interactions per
            user and of the items' popularity.
        rich_users, sparse_users: shares of the users who search often and seldom.  The others never do.
        tied: share of the interactions at the very time of the user's previous one, and of the searches at the very
            time of the interaction that follows.
        seed: seed of all draws.

    Raises:
        ConfigError: the counts contradict each other.
    """

    users: int
    items: int
    queries: int
    interactions: int
    searches: int
    terms: int
    topics: int
    sources: int
    max_clicks: int
    max_terms: int
    start: int
    span: int
    granularity: int = 1
    length_skew: float = 0.2
    popularity_skew: float = 3.0
    rich_users: float = 0.7
    sparse_users: float = 0.2
    noise: float = 0.15
    follow: float = 0.85
    stay: float = 0.6
    tied: float = 0.05
    communities: int = 0
    taste: float = 0.8
    mirrored: bool = False
    seed: int = 2023

    def __post_init__(self) -> None:
        words = self.topic_words
        faults = {
            f"fewer than {MIN_INTERACTIONS} interactions per user": self.interactions < MIN_INTERACTIONS * self.users,
            "fewer interactions than items": self.interactions < self.items,
            "fewer searches than queries": self.searches < self.queries,
            "more searches than interactions": self.searches > self.interactions,
            "fewer queries than topics": self.queries < self.topics,
            "too few items per topic for the clicks": self.items < self.topics * (self.max_clicks + 1),
            "fewer than 2 terms per query": self.max_terms < 2,
            "topics that cannot be dealt out to the communities": bool(self.communities)
            and self.topics % self.communities > 0,
            "too few terms for the queries": words * (words - 1) * self.topics < self.queries,
        }
        if found := [fault for fault, is_so in faults.items() if is_so]:
            raise ConfigError(f"there are no such logs: {'; '.join(found)} (change the counts or the scale)")

    @property
    def topic_words(self) -> int:
        """The number of words that belong to each topic alone."""
        return int(self.terms * (1 - COMMON_TERMS)) // self.topics

    def scaled(self, factor: float) -> SyntheticSpec:
        """The same kind of logs with ``factor`` times as many users, items, events and so on."""
        counts = ("users", "items", "queries", "interactions", "searches", "terms", "topics")
        return replace(self, **{name: max(1, round(getattr(self, name) * factor)) for name in counts})


@dataclass(frozen=True)
class SyntheticLogs:
    """Generated logs.  All ids count from 0, and events are in order of time.

    Attributes:
        user, item, time: ``[interactions]``, the user, the item and the time of each interaction.
        search_user, search_query, search_time, search_source: ``[searches]``, likewise of each search.
        search_clicks: the items clicked in each search.
        query_terms, item_terms: the words of each query and of each item's title, in order.
        item_category: ``[items]``, the category of each item; a category consists of a few topics.
        user_level: ``[users]``, how often each user searches, an index of ``SEARCH_LEVELS``.
        user_community: ``[users]``, the community of each user, all 0 without communities.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    search_user: np.ndarray
    search_query: np.ndarray
    search_time: np.ndarray
    search_source: np.ndarray
    search_clicks: Ragged
    query_terms: Ragged
    item_terms: Ragged
    item_category: np.ndarray
    user_level: np.ndarray
    user_community: np.ndarray


def generate(spec: SyntheticSpec) -> SyntheticLogs:
    """The logs that ``spec`` describes, the same ones every time.

    Raises:
        ConfigError: the users who search have too few interactions, or a user has more than half of all items.
    """
    random = _Random(spec.seed)
    level = np.searchsorted(np.cumsum([spec.rich_users, spec.sparse_users]), random.uniform(spec.users), side="right")
    user, time = _interaction_times(random, spec)
    anchor = _anchors(random, spec, level[user])
    community = random.below(spec.communities, spec.users) if spec.communities else np.zeros(spec.users, dtype=np.int64)
    made = (_mirrored if spec.mirrored else _planted)(random, spec, user, time, anchor, community[user])
    rows, search_rows = np.argsort(time, kind="stable"), np.argsort(made.time, kind="stable")
    return SyntheticLogs(
        user=user[rows],
        item=made.item[rows],
        time=time[rows] + spec.start,
        search_user=user[anchor[search_rows]],
        search_query=made.query[search_rows],
        search_time=made.time[search_rows] + spec.start,
        search_source=made.source[search_rows],
        search_clicks=made.clicks.take(search_rows),
        query_terms=_words(random, spec, spec.queries),
        item_terms=_words(random, spec, spec.items),
        item_category=np.arange(spec.items) % spec.topics // TOPICS_PER_CATEGORY,
        user_level=level,
        user_community=community,
    )


def shuffle_searches_between_users(logs: SyntheticLogs, seed: int) -> SyntheticLogs:
    """The same logs with the queries, sources and clicks of all searches permuted among the searches.

    Who searches and when stays as it is, and so does every count: only what a search tells about its user is gone.
    """
    order = np.argsort(_Random(seed).uniform(len(logs.search_query)), kind="stable")
    return replace(
        logs,
        search_query=logs.search_query[order],
        search_source=logs.search_source[order],
        search_clicks=logs.search_clicks.take(order),
    )


class _Random:
    """Random draws that are the same in every NumPy version: only bit generators are promised to be (NEP 19)."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, size: int) -> np.ndarray:
        """``[size]`` float64 in [0, 1)."""
        return (self._bits.random_raw(size) >> np.uint64(11)) * 2.0**-53

    def below(self, bound: int, size: int) -> np.ndarray:
        """``[size]`` integers from 0 to ``bound`` - 1."""
        return (self.uniform(size) * bound).astype(np.int64)


class _Events(NamedTuple):
    """The item of each interaction, and the query, time, source and clicks of each search."""

    item: np.ndarray
    query: np.ndarray
    time: np.ndarray
    source: np.ndarray
    clicks: Ragged


def _planted(
    random: _Random, spec: SyntheticSpec, user: np.ndarray, time: np.ndarray, anchor: np.ndarray, community: np.ndarray
) -> _Events:
    """Searches drawn on their own, each shortly before its ``anchor``, and the items that follow from them."""
    searched = _topics(random, spec, community[anchor])
    query = _cover(random, _popular(random, spec, searched, spec.queries), spec.queries)
    search_time = _search_times(random, spec, time[anchor])
    informative = random.uniform(len(anchor)) >= spec.noise
    source = random.below(spec.sources, len(anchor))
    source[~informative & (random.uniform(len(anchor)) < 0.75)] = spec.sources - 1
    moment = (user[anchor] * spec.span + search_time)[informative]
    topic = _topic_before(moment, query[informative] % spec.topics, user * spec.span + time, spec.span)
    item = _items(random, spec, user, topic, community)
    return _Events(item, query, search_time, source, _clicks(random, spec, query, item[anchor]))


def _mirrored(
    random: _Random, spec: SyntheticSpec, user: np.ndarray, time: np.ndarray, anchor: np.ndarray, community: np.ndarray
) -> _Events:
    """Items that follow from no search, and searches that are the events of the interactions ``anchor``."""
    item = _items(random, spec, user, np.full(len(user), -1), community)
    query = _ranked(item[anchor] % spec.topics, item[anchor] // spec.topics, spec.queries, spec.topics)
    if len(np.unique(query)) < spec.queries:
        raise ConfigError("a query remains without a search: generate fewer queries or more searches")
    return _Events(item, query, time[anchor], np.zeros_like(query), Ragged(item[anchor], np.arange(len(anchor) + 1)))


def _interaction_times(random: _Random, spec: SyntheticSpec) -> tuple[np.ndarray, np.ndarray]:
    """The users and the times of all interactions, ``[interactions]`` each, ordered by both; times count from 0."""
    weight = 1 / (random.uniform(spec.users) + spec.length_skew) - 1 / (1 + spec.length_skew)
    share = np.cumsum(weight)
    end = np.floor(share / share[-1] * (spec.interactions - MIN_INTERACTIONS * spec.users)).astype(np.int64)
    length = MIN_INTERACTIONS + np.diff(end, prepend=0)
    if length.max() > spec.items // 2:
        raise ConfigError(f"a user would have {length.max()} of {spec.items} items: generate more items or users")
    user = np.repeat(np.arange(spec.users), length)
    time = np.sort(user * spec.span + random.below(spec.span, len(user))) - user * spec.span
    own = random.uniform(len(user)) >= spec.tied
    own[np.cumsum(length) - length] = True
    time = time[_latest(own)]
    return user, time - time % spec.granularity


def _anchors(random: _Random, spec: SyntheticSpec, level: np.ndarray) -> np.ndarray:
    """The interactions that have a search, given their users' levels: ``[searches]`` rows in ascending order."""
    rate = SEARCH_RATES[level]  # [interactions]
    if np.count_nonzero(rate) < spec.searches:
        raise ConfigError("more searches than interactions of users who search: generate fewer searches")
    place = np.divide(random.uniform(len(level)), rate, out=np.full(len(level), np.inf), where=rate > 0)
    return np.sort(np.argsort(place, kind="stable")[: spec.searches])


def _search_times(random: _Random, spec: SyntheticSpec, time: np.ndarray) -> np.ndarray:
    """Times of searches shortly before, or at, the ``time`` of the interactions that they precede."""
    lead = 1 + random.below(max(1, spec.span // 500), len(time))
    lead[random.uniform(len(time)) < spec.tied] = 0
    time = np.maximum(time - lead, 0)
    return time - time % spec.granularity


def _topic_before(moment: np.ndarray, topic: np.ndarray, target: np.ndarray, span: int) -> np.ndarray:
    """Topic of the user's latest search strictly before each ``target`` and not before the previous one, or -1.

    Moments and targets are user * ``span`` + time, so one ``searchsorted`` finds all latest searches; targets rise.
    """
    moment, topic = np.append(-1, moment), np.append(-1, topic)  # a search before everything, of no user
    order = np.argsort(moment, kind="stable")
    latest = order[np.searchsorted(moment[order], target, side="left") - 1]
    previous = np.maximum(np.append(-1, target[:-1]), target - target % span)  # the user's own, or the log's start
    return np.where(moment[latest] >= previous, topic[latest], -1)


def _topics(random: _Random, spec: SyntheticSpec, community: np.ndarray) -> np.ndarray:
    """A topic for each event: one that its user's ``community`` likes, or any."""
    topic = random.below(spec.topics, len(community))
    if not spec.communities:
        return topic
    liked = community + spec.communities * random.below(spec.topics // spec.communities, len(topic))
    return np.where(random.uniform(len(topic)) < spec.taste, liked, topic)


def _items(
    random: _Random, spec: SyntheticSpec, user: np.ndarray, searched_topic: np.ndarray, community: np.ndarray
) -> np.ndarray:
    """The item of each interaction by the rules of the module; ``searched_topic`` is -1 without a search."""
    count = len(user)
    first = np.diff(user, prepend=-1) > 0
    follows = (searched_topic >= 0) & (random.uniform(count) < spec.follow)
    stays = ~follows & ~first & (random.uniform(count) < spec.stay)
    topic = np.where(follows, searched_topic, _topics(random, spec, community))
    item = _popular(random, spec, topic, spec.items)
    start = _latest(~stays)
    item = _ranked(topic[start], item[start] // spec.topics + np.arange(count) - start, spec.items, spec.topics)
    return _cover(random, _without_repeats(random, spec, user, item), spec.items)


def _without_repeats(random: _Random, spec: SyntheticSpec, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Redraw items that their user has in an earlier row, from their topic for some rounds, then from all items."""
    for attempt in range(1_000):
        key = user * spec.items + item
        order = np.argsort(key, kind="stable")
        again = order[1:][np.diff(key[order]) == 0]
        if not len(again):
            return item
        draw = random.below(spec.items, len(again))
        item[again] = _ranked(item[again] % spec.topics, draw, spec.items, spec.topics) if attempt < 4 else draw
    raise ConfigError("users find too few different items: generate more items")


def _clicks(random: _Random, spec: SyntheticSpec, query: np.ndarray, next_item: np.ndarray) -> Ragged:
    """Items of consecutive ranks in the topic of each query, with ``next_item`` replaced by the one after them."""
    count = random.uniform(len(query)) * random.uniform(len(query)) * (spec.max_clicks + 1)
    starts = np.append(0, np.cumsum(count.astype(np.int64)))
    search = np.repeat(np.arange(len(query)), np.diff(starts))
    topic = query % spec.topics
    rank = _popular(random, spec, topic, spec.items) // spec.topics
    place = np.arange(len(search)) - starts[search]  # the place of each click in its search
    click = _ranked(topic[search], rank[search] + place, spec.items, spec.topics)
    spare = _ranked(topic, rank + np.diff(starts), spec.items, spec.topics)
    return Ragged(np.where(click == next_item[search], spare[search], click), starts)


def _words(random: _Random, spec: SyntheticSpec, count: int) -> Ragged:
    """The words of ``count`` queries or titles: two different words of the topic, then words that belong to no topic.

    Each rank in a topic has another pair of words, as long as there are pairs.
    """
    topic, rank = np.arange(count) % spec.topics, np.arange(count) // spec.topics
    own, common = spec.topic_words, spec.topic_words * spec.topics
    starts = np.append(0, np.cumsum(2 + random.below(spec.max_terms - 1, count)))
    terms = common + random.below(spec.terms - common, int(starts[-1]))
    terms[starts[:-1]] = topic * own + rank % own
    terms[starts[:-1] + 1] = topic * own + (rank + 1 + rank // own % (own - 1)) % own
    return Ragged(terms, starts)


def _popular(random: _Random, spec: SyntheticSpec, topic: np.ndarray, count: int) -> np.ndarray:
    """Draw an item (query) of each ``topic`` by popularity, which falls with the rank; ``count`` items exist."""
    weight = np.cumsum(1 / (np.arange(-(-count // spec.topics)) + spec.popularity_skew))
    rank = np.searchsorted(weight, random.uniform(len(topic)) * weight[-1], side="right")
    return _ranked(topic, rank, count, spec.topics)


def _ranked(topic: np.ndarray, rank: np.ndarray, count: int, topics: int) -> np.ndarray:
    """The item (query) of each rank in each topic; ranks wrap around at the size of the topic."""
    size = (count - topic + topics - 1) // topics
    return topic + topics * (rank % size)


def _cover(random: _Random, used: np.ndarray, count: int) -> np.ndarray:
    """Give each of ``count`` ids that is not in ``used`` a place there, taken from an id that has several."""
    first = np.full(count, -1)
    first[used[::-1]] = np.arange(len(used))[::-1]
    unused = np.flatnonzero(first < 0)
    surplus = np.delete(np.arange(len(used)), first[first >= 0])
    order = np.argsort(random.uniform(len(surplus)), kind="stable")
    used[surplus[order[: len(unused)]]] = unused
    return used


def _latest(mask: np.ndarray) -> np.ndarray:
    """For each row, the latest row up to it in which ``mask`` is true; ``mask`` is true in the first row."""
    return np.maximum.accumulate(np.where(mask, np.arange(len(mask)), 0))
