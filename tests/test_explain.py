"""Explaining a score: effects as encoding the rest alone gives them, moments, names, output, wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import command, write_toy
from loaded_runs import Runs, history, searcher, token

from recbole_ser import explain
from recbole_ser.data.histories import HistoryReader, Searches, build_event_log
from recbole_ser.errors import UserError
from recbole_ser.explanation import Explanation
from recbole_ser.explanation.tables import shortened, text_of
from recbole_ser.inference import Recommender
from recbole_ser.runner import run
from recbole_ser.runs.folder import RunFolder

L, S = 8, 6  # how many interactions and searches the runs read
FPMC = "recbole.model.sequential_recommender.fpmc:FPMC"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("explain"))


def target_of(recommender: Recommender, user: str) -> int:
    """The position of the user's test target."""
    test, users = recommender.dataset.split.test, recommender.dataset.log.users
    (position,) = [int(at) for at in test if token(recommender.dataset, "user_id", users[at]) == user]
    return position


def window(frame: pd.DataFrame) -> pd.DataFrame:
    """The events of a history that the runs read, with their places among the latest of their kind."""
    counts = {"click": L, "search": S}
    parts = [part.tail(counts[str(kind)]) for kind, part in frame.groupby("event")]
    return pd.concat([part.assign(place=np.arange(len(part), 0, -1)) for part in parts], ignore_index=True)


def scores_of(recommender: Recommender, events: pd.DataFrame) -> pd.Series:
    """The score of every item for a history that is given as a file would give it, best first."""
    found = recommender.recommend(k=recommender.dataset.target_num, events=events.drop(columns="place"))
    return found.set_index("item_id")["score"]


# --- effects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, "test"])
@pytest.mark.parametrize("model", ["SESRec", "UniSAR", "USER", "SASRec"])
def test_effects_are_those_of_encoding_the_rest_alone(model: str, target: Any, runs: Runs) -> None:
    recommender = runs(model)
    user = searcher(recommender)
    found = explain(recommender, user, target=target)
    events = window(history(recommender, user, None if target is None else target_of(recommender, user)))
    assert len(found.events) == len(events) == L + S < len(history(recommender, user)), "older events stay out"
    everything = scores_of(recommender, events)
    assert found.score == pytest.approx(everything[found.item], abs=1e-6)
    effects = {}
    for row in found.events.itertuples():
        left = events[(events["event"] != row.event) | (events["place"] != row.place)]
        assert len(left) == len(events) - 1
        rest = scores_of(recommender, left)
        assert row.score_without == pytest.approx(rest[found.item], abs=1e-6)
        assert row.effect == found.score - row.score_without
        if target is None:
            assert row.rank_without == 1 + rest.index.get_loc(found.item)
        effects[row.event] = max(abs(row.effect), effects.get(row.event, 0))
    assert effects["click"] > 1e-4 and (effects["search"] > 1e-4) == recommender.reads_searches
    if target is None:
        assert (found.rank, found.ranked) == (1, len(everything)) and found.item == everything.index[0]


def test_events_that_a_model_ignores_have_no_effect(runs: Runs) -> None:
    recommender = runs(FPMC)  # the last item alone
    found = explain(recommender, searcher(recommender))
    moved = found.events[found.events["effect"] != 0]
    assert list(zip(moved["event"], moved["place"])) == [("click", 1)]
    ignored = found.events.iloc[1:]
    assert list(zip(ignored["event"], ignored["place"])) == [
        *(("click", place) for place in range(2, L + 1)),
        *(("search", place) for place in range(1, S + 1)),
    ], "of equal effects the latest first, clicks before searches"
    assert (ignored["score_without"] == found.score).all() and (ignored["rank_without"] == found.rank).all()
    assert found.notes[1:] == [
        "FPMC reads no searches: they change no score",
        "held fixed: what FPMC knows of the user by id",
    ]
    assert found.largest(5).index.tolist() == [0]


def test_rows_in_small_batches_and_without_ranks_score_the_same(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = runs("SESRec")
    user = searcher(recommender)
    whole = explain(recommender, user)
    monkeypatch.setitem(recommender.config.final_config_dict, "eval_batch_size", 3)
    for ranks in (True, False):
        parts = explain(recommender, user, ranks=ranks)
        columns = list(whole.events) if ranks else [name for name in whole.events if name != "rank_without"]
        pd.testing.assert_frame_equal(parts.events, whole.events[columns], rtol=0, atol=1e-6)
        assert (parts.rank, parts.score) == (whole.rank, pytest.approx(whole.score, abs=1e-6))


def test_histories_close_up_and_keep_what_is_known_of_other_events() -> None:
    users, times = np.zeros(4, dtype=np.int64), np.array([10, 20, 100, 200])
    queries = np.array([1, 2, 3])
    searches = Searches.none()
    searches = type(searches)(
        users[:3], np.array([15, 101, 102]), queries, queries,
        type(searches.clicks)(np.array([7, 8, 9]), np.array([0, 2, 2, 3])),
    )  # fmt: skip
    log = build_event_log(users, times, np.array([1, 2, 3, 4]), searches, 1, session_gap=50)
    reader = HistoryReader(log, max_rec=4, max_search=4, max_clicks=2)
    whole = reader.read(torch.tensor([3]))
    rows = reader.without(whole, torch.tensor([4, 0, 2, 4]), torch.tensor([4, 4, 4, 1]))
    assert rows["item_id_list"].tolist() == [[1, 2, 3, 0], [2, 3, 0, 0], [1, 2, 0, 0], [1, 2, 3, 0]]
    assert rows["item_session_list"].tolist() == [[2, 2, 1, 0], [2, 1, 0, 0], [2, 2, 0, 0], [2, 2, 1, 0]]
    assert rows["item_length"].tolist() == [3, 2, 2, 3] and rows["search_length"].tolist() == [3, 3, 3, 2]
    assert rows["search_place_list"].tolist() == [[1, 3, 3, 0], [0, 2, 2, 0], [1, 2, 2, 0], [1, 3, 0, 0]]
    assert rows["search_query_list"][[0, 3]].tolist() == [[1, 2, 3, 0], [1, 3, 0, 0]]
    assert rows["search_source_list"][[0, 3]].tolist() == [[1, 2, 3, 0], [1, 3, 0, 0]]
    assert rows["search_click_list"][3].tolist() == [[7, 8], [9, 0], [0, 0], [0, 0]]
    assert rows["search_session_list"][[0, 3]].tolist() == [[2, 1, 1, 0], [2, 1, 0, 0]]
    for name, values in whole.items():
        assert torch.equal(rows[name][:1], values), name


# --- moments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SESRec", "SASRec"])
def test_a_target_is_explained_as_it_was_ranked(model: str, runs: Runs) -> None:
    recommender = runs(model)
    ranks = RunFolder(runs.path(model)).ranks().set_index("user_id")["rank"]
    for user in ranks.index[:5]:
        found = explain(recommender, user, target="test")
        target = recommender.dataset.log.items[target_of(recommender, user)]
        assert (found.item, found.rank) == (token(recommender.dataset, "item_id", target), ranks[user])
        assert (found.ranked, found.target) == (20, "test")
    # another candidate, which ranks elsewhere, at the same moment
    candidates = [item for item in recommender.dataset.field2id_token["item_id"][1:] if item != found.item]
    for item in candidates:
        try:
            other = explain(recommender, user, item, "test")
            break
        except UserError as error:
            assert f"item '{item}' is not among the 20 items that were ranked for this test target" in str(error)
    assert (other.item, other.ranked) == (item, 20) and other.rank != found.rank
    assert other.events.sort_values(["event", "place"])["id"].tolist() == (
        found.events.sort_values(["event", "place"])["id"].tolist()
    )


def test_of_several_targets_the_latest_is_explained_or_that_of_the_item(runs: Runs, tmp_path: Path) -> None:
    data = {"data_path": str(runs.path("SASRec").parent / "data"), "require_both_histories": False}
    values = {"epochs": 1, "show_progress": False, "state": "WARNING", "run_dir": str(tmp_path / "run")}
    run("SASRec", "small", config_dict={**data, **values, "eval_args": {"mode": "full", "split": {"TS": [0.6, 0.8]}}})
    recommender = Recommender.load(tmp_path / "run")
    log, test = recommender.dataset.log, recommender.dataset.split.test
    number = int(log.users[test].bincount().argmax())
    user = token(recommender.dataset, "user_id", number)
    items = [token(recommender.dataset, "item_id", log.items[at]) for at in test if log.users[at] == number]
    assert len(set(items)) == len(items) > 2
    latest, first = explain(recommender, user, target="test"), explain(recommender, user, items[0], target="test")
    assert latest.item == items[-1] and not any("later" in line for line in latest.notes)
    assert first.notes[0] == f"the user has later test targets, {len(items) - 1}: name the item of another one"
    ranks = RunFolder(tmp_path / "run").ranks()
    assert [first.rank, latest.rank] == ranks.loc[ranks["user_id"] == user, "rank"].iloc[[0, -1]].tolist()
    assert latest.ranked == recommender.dataset.target_num - 1


# --- what the model says, and what is said of it ----------------------------------------------------------------------


def test_interests_are_the_sets_of_the_co_attention(runs: Runs) -> None:
    recommender = runs("SESRec")
    user = searcher(recommender)
    number = np.array([recommender.dataset.token2id("user_id", user)])
    batch, _ = recommender.histories(number, number, number * 0)
    with torch.no_grad():
        state = recommender.model.encode(batch)
    found = explain(recommender, user)
    for event, side in (("click", state.rec), ("search", state.search)):
        of_event = found.events[found.events["event"] == event].sort_values("place", ascending=False)  # oldest first
        similar = side.similarity[0] > 1 / len(of_event)
        assert (of_event["interest"] == np.where(similar, "similar", "dissimilar")).all()
    assert set(found.events["interest"]) == {"similar", "dissimilar"}
    with torch.no_grad():
        before = recommender.model.co_attention.affinity.clone()
        recommender.model.co_attention.affinity.zero_()
        alike = explain(recommender, user)
        recommender.model.co_attention.affinity.copy_(before)
    assert set(alike.events["interest"]) == {"both"} and alike.notes[-1].startswith("both: one of the sets")
    assert "interest" not in explain(runs("UniSAR"), user).events


def test_events_are_named_as_the_data_name_them(runs: Runs) -> None:
    recommender = runs("SASRec")
    user = searcher(recommender)
    events = explain(recommender, user).events.sort_values(["event", "place"], ignore_index=True)
    known = window(history(recommender, user)).sort_values(["event", "place"], ignore_index=True)
    is_click = known["event"] == "click"
    assert events["id"].tolist() == known["item_id"].where(is_click, known["query_id"]).tolist()
    assert events["timestamp"].tolist() == known["timestamp"].tolist()
    clicked = [entry.split()[:2] for entry in known["clicked_items"].fillna("")]  # the runs read two
    assert events["clicked_items"].tolist() == clicked
    folder = runs.folder / "data" / "small"
    titles = dict(line.split("\t")[::2] for line in (folder / "small.item").read_text().splitlines())
    words = dict(line.split("\t")[:2] for line in (folder / "small.query").read_text().splitlines())
    texts = [(titles if click else words)[raw] for click, raw in zip(is_click, events["id"])]
    assert events["text"].tolist() == texts


# --- output ---------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_that_fits_and_writes_files(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    recommender = runs("SESRec")
    found = explain(recommender, searcher(recommender), target="test")
    paths = [tmp_path / name for name in ("a.csv", "a.json", "a.png")]
    capsys.readouterr()
    run_and_user = (runs.path("SESRec"), "--user", found.user, "--target=test", "-k", 3)
    assert command("explain", *run_and_user, "--out", paths[0], "--plot", paths[2]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        f"SESRec, user {found.user}, at the test target: score {found.score:.4f}, rank {found.rank} of 20"
    )
    assert lines[3].split() == ["effect", "rank", "event", "back", "interest", "what"]
    first = found.events.iloc[0]
    shown = [f"{first['effect']:+.4f}", str(first["rank_without"]), first["event"], str(first["place"])]
    assert lines[4].split()[:4] == shown and max(map(len, lines)) <= 80
    assert lines[7] == "" and "not shown: 11 more" in "\n".join(lines)
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    wide = text_of(found, 3, 160).splitlines()
    assert wide[3].split()[-2:] == ["time", "what"] and wide[4].split()[5].startswith("2020-")

    assert command("explain", *run_and_user, "--out", paths[1], "--no-ranks") == 0
    table, whole = pd.read_csv(paths[0]), json.loads(paths[1].read_text())
    assert table["effect"].tolist() == pytest.approx(found.events["effect"].tolist(), abs=1e-12)
    assert set(table["user_id"]) == {found.user} and set(table["rank"]) == {found.rank}
    assert table["clicked_items"].fillna("").tolist() == found.events["clicked_items"].str.join(" ").tolist()
    assert [event["id"] for event in whole.pop("events")] == found.events["id"].tolist()
    expected = {name: value for name, value in vars(found).items() if name != "events"}
    assert whole == {**expected, "score": pytest.approx(found.score, abs=1e-6)}


def test_texts_are_cut_to_what_a_terminal_shows() -> None:
    assert [shortened("hats", width) for width in (4, 3)] == ["hats", "ha…"]
    assert [shortened("帽子店", width) for width in (6, 5, 4)] == ["帽子店", "帽子…", "帽…"]
    events = pd.DataFrame({
        "event": ["click"], "place": [1], "timestamp": [3.5], "id": ["i\n1"], "text": ["$a$ 帽子" * 9],
        "clicked_items": [[]], "effect": [2e-6], "score_without": [1.0], "rank_without": [1],
    })  # fmt: skip
    found = Explanation("M", "u", "i", "", None, 1.0, 1, 2, [], events)
    lines = text_of(found, 10, 120).splitlines()
    assert lines[0] == "item i" and "+0.00000200" in lines[4] and "3.5" in lines[4] and "i 1 $a$" in lines[4]


# --- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "request_", "message"),
    [
        ("SASRec", {"user": "nobody"}, "user 'nobody' is not in the data of this run"),
        ("SASRec", {"user": "u1", "item": "?"}, "item '?' is not in the data of this run"),
        ("SASRec", {"user": "u1", "target": "train"}, "target must be valid or test, not train"),
        ("Pop", {"user": "u1"}, "Pop reads no histories: there is no event to leave out"),
        ("LightGCN", {"user": "u1"}, "LightGCN reads no histories"),
    ],
)
def test_wrong_requests_are_refused(model: str, request_: dict[str, Any], message: str, runs: Runs) -> None:
    with pytest.raises(UserError) as error:
        explain(runs(model), **request_)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_small_data_without_titles_and_what_is_refused_there(tmp_path: Path) -> None:
    events = [*(f"a i{n} {n}" for n in range(1, 8)), "b i2 15", "b i1 25", "b i3 35", "e i2 2", "new i4 40"]
    write_toy(tmp_path, inter=events)
    values = {"data_path": str(tmp_path), "epochs": 1, "show_progress": False, "state": "WARNING",
              "require_both_histories": False, "eval_args": {"mode": "full", "split": {"TS": [0.5, 0.8]}}}  # fmt: skip
    run("SASRec", "toy", config_dict={**values, "run_dir": str(tmp_path / "run")})
    for request, message in (
        ({"user": "e", "target": "test"}, "user 'e' has no test target: leave target out"),
        ({"user": "new", "target": "test"}, "user 'new' has no events that SASRec reads at this moment"),
        ({"user": "a", "item": "x"}, "item 'x' is never ranked: it was only ever clicked in searches"),
    ):
        with pytest.raises(UserError, match=message):
            explain(tmp_path / "run", **request)
    found = explain(tmp_path / "run", "b", "i4")
    assert found.title == "" and set(found.events["text"]) == {"", "blue"}, "queries have words"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--user", "u1", "--out", "a.txt"], "--out a.txt: the name must end in .csv, .json"),
        (["--user", "u1", "--plot", "a.csv"], "--plot a.csv: the name must end in .png, .pdf, .svg"),
        (["--user", "u1", "-k", "0"], "-k must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        command("explain", "folder", *options)
