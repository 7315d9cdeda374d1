"""Finished runs on small generated logs, and what these logs know of a user, for the tests of what loads runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from recbole_ser.data.planted import generate
from recbole_ser.data.synthetic import write
from recbole_ser.inference import Recommender
from recbole_ser.registry import find_model
from recbole_ser.runner import run
from recbole_ser.settings.of_class import settings_of
from recbole_ser.testing import SMALL

EVENT_COLUMNS = ["user_id", "event", "item_id", "timestamp"]


class Runs:
    """Runs of one epoch on small generated logs, each trained when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: dict[str, Recommender] = {}
        write(generate(SMALL), folder / "data" / "small")

    def path(self, model: str) -> Path:
        path = self.folder / model
        if not path.exists():
            values: dict[str, Any] = {
                "data_path": str(self.folder / "data"), "run_dir": str(path), "epochs": 1, "show_progress": False,
                "state": "WARNING", "MAX_ITEM_LIST_LENGTH": 8, "max_search_length": 6, "max_clicks_per_search": 2,
                "max_terms_per_query": 4, "require_both_histories": False, "eval_args": {"mode": "uni19"},
                "session_gap": None, "learning_rate": 0.01,
                "load_col": {"inter": "*", "search": "*", "query": "*", "item": "*", "user": "*"},
            }  # fmt: skip
            declared = settings_of(find_model(model)).model_fields
            values |= {key: 8 for key in ("embedding_size", "hidden_size") if key in declared}
            if model == "GSERec":
                values["codes"] = {"rqvae": {"epochs": 1}}
            run(model, "small", config_dict=values)
        return path

    def __call__(self, model: str) -> Recommender:
        if model not in self.loaded:
            self.loaded[model] = Recommender.load(self.path(model))
        return self.loaded[model]


def history(recommender: Recommender, user: str, target: int | None = None) -> pd.DataFrame:
    """What the data know of ``user`` before the interaction at position ``target``, or everything."""
    dataset, log = recommender.dataset, recommender.dataset.log
    number = dataset.token2id(dataset.uid_field, user)
    first, end = int(log.user_start[number]), int(log.user_start[number + 1])
    search_end = int(log.search_start[number + 1])
    if target is not None:
        end, search_end = target, int(log.searches_before[target])
    rows: list[dict[str, Any]] = [
        {"event": "click", "item_id": token(dataset, "item_id", log.items[at]), "timestamp": dataset.item_times[at]}
        for at in range(first, end)
    ]
    for at in range(int(log.search_start[number]), search_end):
        clicks = log.clicks[log.click_start[at] : log.click_start[at + 1]]
        rows.append(
            {
                "event": "search",
                "query_id": token(dataset, "query_id", log.queries[at]),
                "clicked_items": " ".join(token(dataset, "item_id", item) for item in clicks),
                "source": token(dataset, "source", log.sources[at]),
                "timestamp": dataset.search_times[at],
            }
        )
    return pd.DataFrame(rows, columns=[*EVENT_COLUMNS, "query_id", "terms", "clicked_items", "source"]).assign(
        user_id=user
    )


def token(dataset: Any, field: str, number: Any) -> str:
    return str(dataset.id2token(field, int(number)))


def searcher(recommender: Recommender) -> str:
    """A user with several searches and interactions."""
    log = recommender.dataset.log
    number = int((log.search_start.diff().clamp(max=6) * 100 + log.user_start.diff()).argmax())
    return token(recommender.dataset, "user_id", number)
