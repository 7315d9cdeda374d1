"""What made a score: each event of the user's histories is left out once, and what remains is encoded again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from torch import Tensor
from tqdm import tqdm

from recbole_ser.errors import UserError
from recbole_ser.evaluation.ranking import rank_of_column
from recbole_ser.explanation.events import events_of
from recbole_ser.explanation.moments import Moment, Phase, moment_of
from recbole_ser.inference.event_file import CLICK, SEARCH
from recbole_ser.inference.recommender import Recommender
from recbole_ser.inference.scores import rows_at_once
from recbole_ser.model.catalogue import catalogue_scores
from recbole_ser.runs.loading import user_tables
from recbole_ser.text.item_texts import item_titles


@dataclass(frozen=True)
class Explanation:
    """How much each event of a user's histories changes the score of one item.

    An effect is the score with all events minus the score without that one, so an event with a positive effect speaks
    for the item.  The model is not trained anew.  Effects need not add up to the score, and of two events that say the
    same either may have little effect, as the other one is still there.

    Args:
        model: name of the model.
        user, item: raw ids.
        title: of the item, see ``item_titles``; '' if there is none.
        target: the split of the target that is explained as it was ranked; ``None``: now, after all events.
        score, rank: with all events; ranks count from 1, and equal scores are ranked as in evaluation.
        ranked: the number of items among which the item is ranked: the target's candidates, or the whole catalogue.
        notes: lines that say what was held fixed, and which events are not there.
        events: the events that the model was given, by the size of their effects; of equal ones clicks come first, and
            the latest first.  Columns: ``event`` (click or search); ``place`` (1 is the latest of its kind, 2 the one
            before); ``timestamp``; ``id`` (raw id of the item or query); ``text`` (its title or words, or '');
            ``clicked_items`` (list of raw ids, empty for a click); from a model that says so (SESRec) ``interest``,
            whether the event is ``similar`` or ``dissimilar`` to the user's other history, or in ``both`` sets;
            ``effect``, ``score_without`` and, if asked for, ``rank_without``.
    """

    model: str
    user: str
    item: str
    title: str
    target: Phase | None
    score: float
    rank: int
    ranked: int
    notes: list[str]
    events: pd.DataFrame

    def largest(self, k: int) -> pd.DataFrame:
        """At most ``k`` events, those with the largest effects; of events without effect only if all are."""
        moved = self.events[self.events["effect"] != 0]
        return (moved if len(moved) else self.events).head(k)

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, with a dictionary for each event."""
        return {**vars(self), "events": self.events.to_dict("records")}


def explain(
    run: str | Path | Recommender,
    user: Any,
    item: Any = None,
    target: Phase | None = None,
    ranks: bool = True,
    show_progress: bool = False,
) -> Explanation:
    """Leave out each event of a user's histories once, and compare the scores of one item.

    The rest of the history closes up; no event that was too old for the lengths that the model reads comes in.  A
    search is left out with its clicks, and an interaction that it led to stays.

    Args:
        run: the folder of a finished run or sweep, or a loaded ``Recommender``, which can be asked again and again.
        user: raw id.
        item: raw id; by default the item that is recommended first or, with ``target``, the target itself.
        target: explain the user's target in this split, ``valid`` or ``test``, as it was ranked, with its histories and
            its candidates; of several targets the latest of ``item``, or else the latest.  By default the moment is
            now, after all events, and the item is ranked in the whole catalogue, as ``recommend`` does it.
        ranks: whether to find the item's rank without each event, for which the whole catalogue is scored as often.
        show_progress: whether to show a progress bar, on a terminal.

    Raises:
        UserError: the user or the item is unknown or is not ranked; the model reads no histories, or none of the user's
            events; a score is not finite.
    """
    recommender = run if isinstance(run, Recommender) else Recommender.load(run)
    model = recommender.config["model"]
    if not (recommender.reads_interactions or recommender.reads_searches):
        raise UserError(f"{model} reads no histories: there is no event to leave out")
    moment = moment_of(recommender, str(user), None if item is None else str(item), target)
    titles = item_titles(recommender.dataset)
    events = events_of(recommender, moment, titles)
    read = events["event"].map({CLICK: recommender.reads_interactions, SEARCH: recommender.reads_searches})
    if not read.any():
        raise UserError(f"user '{user}' has no events that {model} reads at this moment: there is none to leave out")
    score, rank, events = _with_effects(recommender, moment, events, read, ranks, show_progress)
    raw = str(recommender.dataset.id2token(recommender.dataset.iid_field, moment.item))
    return Explanation(
        model=model,
        user=str(user),
        item=raw,
        title=titles.get(raw, ""),
        target=target,
        score=score,
        rank=rank,
        ranked=len(moment.items),
        notes=_notes(recommender, moment, events, target),
        events=events.sort_values("effect", key=lambda effects: -effects.abs(), kind="stable", ignore_index=True),
    )


def _with_effects(
    recommender: Recommender,
    moment: Moment,
    events: pd.DataFrame,
    read: pd.Series[bool],
    ranks: bool,
    show_progress: bool,
) -> tuple[float, int, pd.DataFrame]:
    """The item's score and rank with all ``events``, and these with their effects; those not ``read`` have none."""
    items = moment.items if ranks else moment.items[moment.items == moment.item]
    scores, found = _without_each(recommender, moment, events[read], items, show_progress)
    rank = found[0] if ranks else _without_each(recommender, moment, events[:0], moment.items, False)[1][0]
    events = events.assign(effect=0.0, score_without=scores[0], **({"rank_without": rank} if ranks else {}))
    events.loc[read, "effect"], events.loc[read, "score_without"] = scores[0] - scores[1:], scores[1:]
    if ranks:
        events.loc[read, "rank_without"] = found[1:]
    return float(scores[0]), int(rank), events


@torch.no_grad()
def _without_each(
    recommender: Recommender, moment: Moment, events: pd.DataFrame, items: Tensor, show_progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scores float64, and ranks among ``items [n]``, of the item: ``[1 + E]``, for everything and without each event.

    ``events`` are the E events that are left out.
    """
    items = items.to(recommender.device)
    column = (items == moment.item).long().argmax()
    step = rows_at_once(recommender.scorer, len(items), recommender.config["eval_batch_size"])
    places = [part.split(step) for part in _left_out(recommender, moment, events)]
    names = recommender.dataset.field2id_token[recommender.dataset.uid_field]
    scores, ranks = [], []
    quiet = None if show_progress else True  # None: quiet unless on a terminal
    with tqdm(total=1 + len(events), desc="Explain", unit="row", leave=False, disable=quiet) as bar:
        for clicks, searches in zip(*places):
            rows = _rows(recommender, moment, clicks, searches)
            found = _scores(recommender, moment, rows, items)  # [b, n]
            recommender.refuse_non_finite(found, names[rows[recommender.dataset.uid_field].cpu().numpy()])
            scores.append(found[:, column].double().cpu())
            ranks.append(rank_of_column(found, column.expand(len(clicks))).cpu())
            bar.update(len(clicks))
    return torch.cat(scores).numpy(), torch.cat(ranks).numpy()


def _left_out(recommender: Recommender, moment: Moment, events: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """The interaction and the search that each row lacks ``[1 + E]``, for ``HistoryReader.without``."""
    reader, batch = recommender.dataset.history_reader(), moment.batch

    def places(event: str, length: str, none: int) -> Tensor:
        of_event = np.where(events["event"] == event, int(batch[length]) - events["place"], none)
        return torch.from_numpy(np.concatenate([[none], of_event]))

    return places(CLICK, reader.item_length, reader.max_rec), places(SEARCH, "search_length", reader.max_search)


def _rows(recommender: Recommender, moment: Moment, clicks: Tensor, searches: Tensor) -> Interaction:
    """The row of ``moment`` without each of ``clicks [b]`` and ``searches [b]``."""
    dataset, batch = recommender.dataset, moment.batch
    fixed = {field: batch[field].expand(len(clicks)) for field in (dataset.uid_field, dataset.iid_field)}
    rows = dataset.history_reader().without(batch.interaction, clicks, searches)
    return Interaction({**fixed, **rows}).to(recommender.device)


def _scores(recommender: Recommender, moment: Moment, rows: Interaction, items: Tensor) -> Tensor:
    """Scores ``[b, n]``, computed as evaluation computes them."""
    if moment.catalogue:
        return catalogue_scores(recommender.scorer, rows, items)
    return recommender.scorer.score(recommender.scorer.encode(rows), items.expand(len(rows), -1))


def _notes(recommender: Recommender, moment: Moment, events: pd.DataFrame, target: Phase | None) -> list[str]:
    """What the reader should know besides the effects."""
    model, log, notes = recommender.config["model"], recommender.dataset.log, []
    if moment.later_targets:
        notes.append(f"the user has later {target} targets, {moment.later_targets}: name the item of another one")
    users = recommender.dataset.uid_field
    user = int(moment.batch[users])
    for event, plural, read, start, end in (
        (CLICK, "clicks", recommender.reads_interactions, log.user_start[user], moment.ends[0]),
        (SEARCH, "searches", recommender.reads_searches, log.search_start[user], moment.ends[1]),
    ):
        given, known = int((events["event"] == event).sum()), end - int(start)
        if known and not read:
            notes.append(f"{model} reads no {plural}: they change no score")
        elif given < known:
            notes.append(f"{model} reads the latest {given} of {known:,} {plural}: older ones change no score")
    if users in recommender.reads or user_tables(recommender.model, recommender.dataset.user_num):
        also = [f", {what} included" for what in ("codes", "texts") if getattr(recommender.model, f"reads_{what}", 0)]
        notes.append(f"held fixed: what {model} knows of the user by id{''.join(also)}")
    if "interest" in events and (events["interest"] == "both").any():
        notes.append("both: one of the sets would be empty, so the model takes all events of that history for it")
    return notes
