"""The events of one row of histories as a table that people can read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ser.explanation.moments import Moment
from recbole_ser.inference.event_file import CLICK, SEARCH
from recbole_ser.inference.recommender import Recommender
from recbole_ser.model.base import SearchRecommender
from recbole_ser.text.item_texts import query_texts


def events_of(recommender: Recommender, moment: Moment, titles: dict[str, str]) -> pd.DataFrame:
    """The events that the model is given: clicks, then searches, each from the latest back; see ``Explanation``.

    Args:
        titles: of items, by raw id.
    """
    dataset, batch = recommender.dataset, moment.batch
    reader, items = dataset.history_reader(), dataset.field2id_token[dataset.iid_field]
    clicks, searches = int(batch[reader.item_length]), int(batch["search_length"])
    clicked = items[_from_the_latest(batch[reader.item_list], clicks)]
    frames = [_frame(CLICK, clicked, dataset.item_times, moment.ends[0], [titles.get(raw, "") for raw in clicked])]
    if searches:
        queries, texts = _from_the_latest(batch["search_query_list"], searches), query_texts(dataset)
        raw = dataset.field2id_token[dataset.query_field][queries]
        words = ["" if texts[query] == name else texts[query] for query, name in zip(queries, raw)]
        frame = _frame(SEARCH, raw, dataset.search_times, moment.ends[1], words)
        under = _from_the_latest(batch["search_click_list"], searches)  # [searches, C]
        frames.append(frame.assign(clicked_items=[items[row[row != 0]].tolist() for row in under]))
    events = pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
    interests = _interests(recommender, batch, (clicks, searches))
    return events if interests is None else events.assign(interest=interests)


def _from_the_latest(values: Tensor, count: int) -> np.ndarray:
    return values[0, :count].flip(0).numpy()


def _frame(event: str, raw: np.ndarray, times: np.ndarray, end: int, texts: list[str]) -> pd.DataFrame:
    count = len(raw)
    columns = {"event": event, "place": np.arange(1, count + 1), "timestamp": times[end - count : end][::-1]}
    return pd.DataFrame({**columns, "id": raw, "text": texts, "clicked_items": [[] for _ in range(count)]})


@torch.no_grad()
def _interests(recommender: Recommender, batch: Interaction, counts: tuple[int, int]) -> list[str] | None:
    """What the model says of each event, in the order of `events_of`; ``None`` if it says nothing.

    ``both``: an empty set becomes all events (SESRec, Eq. 11-12).
    """
    model: Any = recommender.model
    if not isinstance(model, SearchRecommender):
        return None
    similar = model.similar_positions(batch.to(recommender.device))
    if similar is None:
        return None
    words: list[str] = []
    for positions, count in zip(similar, counts):
        found = _from_the_latest(positions.cpu(), count)
        divided = found.any() and not found.all()
        words += np.where(found, "similar", "dissimilar").tolist() if divided else ["both"] * count
    return words
