"""Recommending: scores as in evaluation, histories from files, unknown things, ties, files out, wrong input."""

from __future__ import annotations

import copy
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import command, write_lines, write_toy
from hypothesis import given, settings
from hypothesis import strategies as st
from loaded_runs import EVENT_COLUMNS, Runs, history, searcher, token

from recbole_ser.data.loader import EvalLoader
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.inference import Recommender, Retriever, recommend, scores
from recbole_ser.inference.new_queries import with_queries
from recbole_ser.records import write_sealed
from recbole_ser.registry import MODELS
from recbole_ser.runner import run
from recbole_ser.runs.folder import RunFolder

NONE = pd.DataFrame(columns=EVENT_COLUMNS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("recommend"))


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores ``[users, items]``."""
    return frame.pivot(index="user_id", columns="item_id", values="score")


def assert_same_scores(first: pd.DataFrame, second: pd.DataFrame) -> None:
    a, b = table(first), table(second)
    pd.testing.assert_frame_equal(a, b, rtol=1e-4, atol=1e-5)


def everything(recommender: Recommender, **request: Any) -> pd.DataFrame:
    return recommender.recommend(k=recommender.dataset.target_num, **request)


def changed(recommender: Recommender, frame: pd.DataFrame, event: dict[str, Any]) -> pd.DataFrame:
    """The history with one more event, right after its end."""
    late = {"user_id": frame["user_id"].iloc[0], "timestamp": frame["timestamp"].max() + 1, **event}
    return pd.concat([frame, pd.DataFrame([late])], ignore_index=True)


# --- scores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_history_in_a_file_scores_as_the_evaluation_does(model: str, runs: Runs, tmp_path: Path) -> None:
    recommender = runs(model)
    loader = EvalLoader(recommender.config, recommender.dataset, "test")
    batch, items, _ = next(iter(loader))
    assert items is not None
    with torch.no_grad():
        expected = recommender.scorer.score(recommender.scorer.encode(batch), items)
    users = loader.user_tokens().tolist()
    cut = [history(recommender, user, int(at)) for user, at in zip(users, loader.positions)]
    events = pd.concat(cut).sort_values("timestamp", ascending=False, kind="stable")  # latest first, users mixed
    events = events.fillna({"item_id": "i1", "query_id": "q1"})  # which means nothing in rows of the other kind
    events.to_csv(tmp_path / "events.csv", index=False)
    found = everything(recommender, events=tmp_path / "events.csv")
    assert set(found["user_id"]) == set(users) and len(users) > 40
    found = table(found)
    tokens = recommender.dataset.field2id_token["item_id"][items.numpy()]
    actual = np.array([found.loc[user, row].to_numpy() for user, row in zip(users, tokens)])
    np.testing.assert_allclose(actual, expected.double().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["SESRec", "SASRec"])
def test_the_known_history_holds_everything_and_a_file_replaces_it(model: str, runs: Runs) -> None:
    recommender = runs(model)
    users = recommender.users[:20]
    known = everything(recommender, users=users)
    assert list(dict.fromkeys(known["user_id"])) == users
    whole = pd.concat([history(recommender, user) for user in users])
    assert_same_scores(everything(recommender, users=users, events=whole), known)
    test = {token(recommender.dataset, "user_id", recommender.dataset.log.users[at]): int(at)
            for at in recommender.dataset.split.test}  # fmt: skip
    cut = pd.concat([history(recommender, user, test[user]) for user in users if user in test])
    before = table(everything(recommender, events=cut))
    assert (np.abs(before - table(known).loc[before.index]).max(axis=1) > 1e-6).all()


@pytest.mark.parametrize("model", ["SESRec", "SASRec"])
def test_later_events_count_and_extend_what_is_known(model: str, runs: Runs) -> None:
    recommender = runs(model)
    user = searcher(recommender)
    known = history(recommender, user)
    searches = known[known["event"] == "search"]
    news = [{"event": "click", "item_id": recommender.dataset.id2token("item_id", 3)}]
    if model == "SESRec":
        news.append({"event": "search", "query_id": searches["query_id"].iloc[0], "clicked_items": ""})
    for event in news:
        more = changed(recommender, known, event)
        later = everything(recommender, events=more)
        assert np.abs(table(later) - table(everything(recommender, users=[user]))).max(axis=None) > 1e-6
        assert_same_scores(everything(recommender, events=more.tail(1), extend=True), later)
        assert np.abs(table(everything(recommender, events=more.tail(1))) - table(later)).max(axis=None) > 1e-6
    click = known[known["event"] == "click"].tail(3).head(1)  # moved out of the middle, and put in between again
    rest = known.drop(click.index)
    early = pd.concat([click, rest])
    assert_same_scores(everything(recommender, events=early), everything(recommender, users=[user]))


def test_an_event_at_the_end_of_all_time_is_the_last(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = runs("SESRec")
    frame = history(recommender, searcher(recommender))
    event = {"event": "click", "item_id": recommender.dataset.id2token("item_id", 1)}
    latest = changed(recommender, frame, {**event, "timestamp": 2**63 - 1})
    usual = everything(recommender, events=changed(recommender, frame, event))
    assert_same_scores(everything(recommender, events=latest), usual)
    assert_same_scores(everything(recommender, events=latest.iloc[-1:], extend=True), usual)
    monkeypatch.setattr(recommender.dataset, "item_times", recommender.dataset.item_times + 2**60)
    with pytest.raises(DataError, match="fractions here and whole numbers above"):
        recommender.recommend(events=frame.assign(timestamp=0.5))


def test_events_between_known_ones_are_read_there(runs: Runs) -> None:
    recommender = runs("SESRec")
    users = recommender.users[:6]
    known = [history(recommender, user) for user in users]
    news = []
    for number, frame in enumerate(known[::-1][:4]):  # some users have none, and they come in another order
        times = frame.loc[frame["event"] == "click", "timestamp"].to_numpy()
        click = {"event": "click", "item_id": f"i{number + 1}", "timestamp": times[-2]}  # a tie: known ones first
        search = {"event": "search", "query_id": "q2", "clicked_items": "i3 i4", "timestamp": times[-1] - 1}
        news.append(pd.DataFrame([click, search][: 1 + number % 2]).assign(user_id=frame["user_id"].iloc[0]))
    result = everything(recommender, users=users, events=pd.concat(news), extend=True)
    assert_same_scores(result, everything(recommender, users=users, events=pd.concat([*known, *news])))
    late = pd.concat(news)
    late["timestamp"] += 10_000_000
    moved = table(everything(recommender, users=users, events=late, extend=True))
    assert (np.abs(table(result) - moved).max(axis=1) > 1e-6).sum() == 4


@pytest.mark.parametrize("model", ["GSERec", "UniSAR", "SASRec", "BPR", "LightGCN", "Pop", "SRJGraph"])
def test_users_do_not_depend_on_each_other(model: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = runs(model)
    together = everything(recommender, users=recommender.users[:12])
    alone = pd.concat([everything(recommender, users=[user]) for user in recommender.users[:12]])
    assert_same_scores(together, alone)
    monkeypatch.setattr(scores, "SCORES_AT_ONCE", 5 * recommender.dataset.item_num)
    monkeypatch.setattr(type(recommender.scorer), "catalogue_block", (3, 16), raising=False)
    assert_same_scores(everything(recommender, users=recommender.users[:12]), together)
    parts = list(recommender.in_parts(recommender.users[:12]))
    assert [part["user_id"].nunique() for part in parts] == [5, 5, 2]


def test_the_module_function_does_the_same(runs: Runs) -> None:
    users = runs("SASRec").users[3:5]
    expected = runs("SASRec").recommend(users, 4)
    pd.testing.assert_frame_equal(recommend(runs.path("SASRec"), [*users, users[0]], 4), expected)
    assert list(expected) == ["user_id", "rank", "item_id", "score"]
    assert expected["rank"].tolist() == [1, 2, 3, 4] * 2
    assert (expected.groupby("user_id")["score"].diff().dropna() <= 0).all()


def test_a_run_keeps_its_settings_when_the_defaults_change(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs.path("SASRec"), folder)
    arguments = json.loads((folder / "arguments.json").read_text())
    del arguments["config_dict"]["MAX_ITEM_LIST_LENGTH"], arguments["checksum"]  # as if it had been the default
    (folder / "arguments.json").write_text(json.dumps(arguments))
    pd.testing.assert_frame_equal(recommend(folder, ["u1"]), runs("SASRec").recommend(["u1"]))


# --- what is ranked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SESRec", "Pop"])
def test_seen_items_are_left_out_on_request(model: str, runs: Runs) -> None:
    recommender = runs(model)
    user = searcher(recommender)
    known = history(recommender, user)
    seen = {*known["item_id"].dropna(), *" ".join(known["clicked_items"].dropna()).split()}
    plain, unseen = (everything(recommender, users=[user], exclude_seen=flag) for flag in (False, True))
    assert {*known["item_id"].dropna()} < seen
    expected = plain[~plain["item_id"].isin(seen)].reset_index(drop=True)
    assert unseen["item_id"].tolist() == expected["item_id"].tolist()
    assert unseen["rank"].tolist() == list(range(1, len(expected) + 1))
    mine = recommender.recommend([user], 5, exclude_seen=True, candidates=[*list(seen)[:8], expected["item_id"][0]])
    assert mine["item_id"].tolist() == [expected["item_id"][0]]
    event = known[known["event"] == "click"].tail(1)
    replaced = everything(recommender, events=event, exclude_seen=True)
    assert set(plain["item_id"]) - set(replaced["item_id"]) == set(event["item_id"])


def test_candidates_are_ranked_among_themselves(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    recommender = runs("SESRec")
    whole = everything(recommender, users=["u2"])
    chosen = whole["item_id"].iloc[[50, 3, 20]].tolist()
    with caplog.at_level(logging.WARNING):
        few = recommender.recommend(["u2"], candidates=[*chosen, chosen[0], "nothing"])
    assert few["item_id"].tolist() == [chosen[1], chosen[2], chosen[0]]
    assert "candidates that nobody in the data interacted with, left out: 1 (nothing)" in caplog.text
    assert len(whole) == recommender.dataset.target_num - 1


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, -np.inf]), min_size=6, max_size=6), min_size=1, max_size=5),
       st.integers(1, 8))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_ties_go_to_the_earlier_column(rows: list[list[float]], k: int) -> None:
    values, columns = scores.top_k(torch.tensor(rows), k)
    order = np.argsort(-np.array(rows), axis=1, kind="stable")[:, :k]
    assert columns.tolist() == order.tolist()
    assert values.tolist() == np.take_along_axis(np.array(rows), order, axis=1).tolist()


# --- two stages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "other"), [("SESRec", "SASRec"), ("SASRec", "LightGCN"), ("UniSAR", "GSERec")])
def test_a_retriever_chooses_what_is_ranked(model: str, other: str, runs: Runs) -> None:
    recommender, retriever = runs(model), runs(other)
    users, k, count = recommender.users[:9], 5, 12
    found = recommender.recommend(users, k, exclude_seen=True, retriever=Retriever(retriever, count))
    chosen = retriever.recommend(users, count, exclude_seen=True)
    scored = everything(recommender, users=users).merge(chosen[["user_id", "item_id"]])
    expected = scored.sort_values("score", ascending=False, kind="stable").groupby("user_id").head(k)
    pd.testing.assert_frame_equal(
        found[["user_id", "item_id", "score"]].sort_values(["user_id", "score"], ignore_index=True),
        expected[["user_id", "item_id", "score"]].sort_values(["user_id", "score"], ignore_index=True),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    assert found["rank"].tolist() == [1, 2, 3, 4, 5] * 9
    everywhere = recommender.recommend(users, k, retriever=Retriever(retriever, 1000))
    assert_same_scores(everywhere, recommender.recommend(users, k))
    assert recommender.recall(Retriever(retriever, 1000), users, k) == 1
    whole = recommender.recommend(users, k)
    of_few = recommender.recommend(users, k, retriever=Retriever(retriever, count)).merge(
        whole, on=["user_id", "item_id"]
    )
    assert recommender.recall(Retriever(retriever, count), users, k) == len(of_few) / len(whole) < 1


def test_a_retriever_reads_the_events_too(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    recommender, retriever = runs("SESRec"), runs("UniSAR")
    words = recommender.dataset.field2id_token[recommender.dataset.terms_field][1:4]
    rows = [
        ("new", "search", 1, None, " ".join(words)),
        ("new", "click", 2, "i7", None),
        ("u1", "click", 9, "i1", None),
    ]
    events = pd.DataFrame(rows, columns=["user_id", "event", "timestamp", "item_id", "terms"])
    found = recommender.recommend(k=4, events=events, retriever=Retriever(retriever, 9))
    chosen = retriever.recommend(k=9, events=events)
    assert len(found.merge(chosen, on=["user_id", "item_id"])) == len(found) == 8
    assert 0 < recommender.recall(Retriever(retriever, 9), k=4, events=events) <= 1
    with pytest.raises(UserError, match="LightGCN knows users by training alone; users who are not in the data: 1"):
        recommender.recommend(k=4, events=events, retriever=Retriever(runs("LightGCN"), 9))


def test_a_retriever_that_does_not_fit_is_refused(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chooses 5 items, and 6 are to be recommended"):
        runs("SESRec").recommend(["u1"], 6, retriever=Retriever(runs("SASRec"), 5))
    with pytest.raises(ConfigError, match="chooses at least 1 item, not 0"):
        Retriever(runs("SASRec"), 0)
    other = copy.copy(runs("SASRec"))
    other.dataset = copy.copy(other.dataset)
    other.dataset.__dict__["data_hash"] = "another"
    with pytest.raises(UserError, match="the retriever was trained on other data"):
        runs("SESRec").recommend(["u1"], 6, retriever=Retriever(other))


def test_the_command_retrieves_and_checks(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--all", "-k", 3, "--exclude-seen", "--retriever", runs.path("SASRec"), "--retrieve", 9]
    runs.path("SESRec")
    capsys.readouterr()
    out = tmp_path / "top.csv"
    assert command_line(runs.path("SESRec"), *options, "--check", 20, "--out", out) == 0
    recommender, retriever = runs("SESRec"), Retriever(runs("SASRec"), 9)
    expected = recommender.recommend(recommender.users, 3, exclude_seen=True, retriever=retriever)
    pd.testing.assert_frame_equal(pd.read_csv(out), expected)
    share = recommender.recall(retriever, recommender.users, 3, at_most=20, exclude_seen=True)
    assert f"{share:.1%} of the 3 best of all items were found" in capsys.readouterr().out and 0 < share < 1


# --- unknown things -------------------------------------------------------------------------------------------------


def test_unknown_items_are_left_out_and_reported(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    recommender = runs("SESRec")
    user = searcher(recommender)
    known = history(recommender, user)
    more = changed(recommender, known, {"event": "click", "item_id": "new1"})
    more = changed(recommender, changed(recommender, more, {"event": "click", "item_id": "new2"}),
                   {"event": "click", "item_id": "new1"})  # fmt: skip
    searches = more["event"] == "search"
    more.loc[searches, "clicked_items"] = "new3 " + more.loc[searches, "clicked_items"]
    with caplog.at_level(logging.WARNING):
        found = everything(recommender, events=more)
    assert_same_scores(found, everything(recommender, users=[user]))
    assert "clicks on unknown items, left out: 3 (new1, new2)" in caplog.text
    assert f"unknown items clicked in searches, left out: {searches.sum()} (new3)" in caplog.text


def test_an_unknown_query_is_read_by_its_known_words(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    recommender = runs("SESRec")
    dataset, user = recommender.dataset, searcher(recommender)
    known = history(recommender, user)
    words = [token(dataset, "terms", word) for word in dataset.query_terms[5] if word]
    by_id, by_text, with_unknown, nothing = (
        everything(recommender, events=changed(recommender, known, {"event": "search", **query}))
        for query in (
            {"query_id": token(dataset, "query_id", 5)}, {"terms": " ".join(words)},
            {"query_id": "q?", "terms": ["zzz", *words]}, {"terms": "zzz zzz"},
        )
    )  # fmt: skip
    pd.testing.assert_frame_equal(by_text, by_id)
    pd.testing.assert_frame_equal(with_unknown, by_id)
    assert_same_scores(nothing, everything(recommender, users=[user]))
    caplog.clear()
    new = changed(recommender, known, {"event": "search", "terms": " ".join([*words, words[0], "zzz"])})
    with caplog.at_level(logging.WARNING):
        found = everything(recommender, events=new)
    for other in (by_id, nothing):
        assert np.abs(table(found) - table(other)).max(axis=None) > 1e-6
    assert "unknown words of queries, left out: 1 (zzz)" in caplog.text
    assert "searches with an unknown query, read by its known words: 1" in caplog.text
    assert_same_scores(everything(recommender, users=[user]), nothing)  # nothing of it is left in the model
    other = changed(recommender, known.assign(user_id="u1"), {"event": "search", "terms": [words[1], words[1]]})
    together = everything(recommender, events=pd.concat([other, new]))
    assert_same_scores(together, pd.concat([found, everything(recommender, events=other)]))


def test_a_new_query_is_its_words_without_an_id(runs: Runs) -> None:
    model = copy.deepcopy(runs("SESRec").model)  # no parameter of which counts a change
    queries, count = model.queries, model.queries.count
    words = torch.tensor([[4, 2, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]], dtype=torch.int32)  # wider than the table
    with torch.no_grad():
        before = queries(torch.arange(count))
        with with_queries(model, words):
            inside = queries(torch.arange(count + 2))
        mean = queries.attributes[0].table.weight[[4, 2]].mean(dim=0)
        expected = queries.projection(torch.cat([torch.zeros(queries.ids.embedding_dim), mean]))
        assert torch.equal(inside[:count], before)
        torch.testing.assert_close(inside[count], expected)
        with with_queries(model, words[1:]):
            torch.testing.assert_close(queries(torch.tensor([count])), inside[count + 1 :])
        assert torch.equal(queries(torch.arange(count)), before) and queries.count == count


def test_a_model_without_searches_says_so(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    word = token(runs("JSR").dataset, "terms", 1)
    searches = {"event": "search", "terms": ["zzz", "", f"{word} {word}"], "query_id": ["", "q1", ""], "timestamp": 1}
    for model, line in (("JSR", "no searches"), ("SASRec", "no searches"), ("SRJGraph", "no histories")):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            runs(model).recommend(events=pd.DataFrame({"user_id": "u1", **searches}))
        assert f"{model} reads {line}" in caplog.text
        lost = f"2 (zzz, {word} {word})" if model == "SASRec" else "1 (zzz)"  # it has no words either
        assert f"searches with an unknown query, left out: {lost}" in caplog.text


@pytest.mark.parametrize(("name", "table"), [("FPMC", "UI_emb"), ("FOSSIL", "user_lambda"), ("HRM", "user_embedding")])
def test_the_untrained_vector_of_unknown_users_is_not_used(name: str, table: str, runs: Runs) -> None:
    vectors = getattr(runs(f"recbole.model.sequential_recommender:{name}").model, table).weight
    assert not vectors[0].any() and vectors[1].any()


@pytest.mark.parametrize("model", ["SESRec", "GSERec", "SASRec", "Pop", "SRJGraph"])
def test_an_unknown_user_is_the_events(model: str, runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    recommender = runs(model)
    events = history(recommender, searcher(recommender)).assign(user_id="stranger")
    with caplog.at_level(logging.WARNING):
        found = everything(recommender, events=events)
    assert "users who are not in the data" in caplog.text and np.isfinite(found["score"]).all()
    other = everything(recommender, events=history(recommender, "u2").assign(user_id="stranger"))
    assert (np.abs(table(found) - table(other)).max(axis=None) > 1e-6) == (model not in ("Pop", "SRJGraph"))
    if model == "GSERec":
        assert not recommender.model.users.weight[0].any() and recommender.model.users.weight[1].any()


def test_of_several_users_those_who_are_known_are_answered(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = runs("SASRec").recommend(users=["u2", "nobody", "u1"], k=3)
    assert found["user_id"].tolist() == ["u2"] * 3 + ["u1"] * 3
    assert "users who are not in the data, left out: 1 (nobody)" in caplog.text
    pd.testing.assert_frame_equal(found, runs("SASRec").recommend(users=["u2", "u1"], k=3))


# --- files ----------------------------------------------------------------------------------------------------------


def command_line(*arguments: object) -> int:
    return command("recommend", *arguments)


def test_the_command_prints_a_table(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "users", "u5", "", "u3")
    rows = ["u3,click,i1,9", "u3,click,?,9"]
    write_lines(tmp_path / "events.csv", "user_id,event,item_id,timestamp", *rows)
    options = ["--events", tmp_path / "events.csv", "-k", 40, "--extend", "--exclude-seen"]
    runs.path("SASRec")  # trained now, if it has not been, and not while output is watched
    capsys.readouterr()
    assert command_line(runs.path("SASRec"), "--users-file", tmp_path / "users", *options) == 0
    out, errors = capsys.readouterr()
    expected = runs("SASRec").recommend(["u5", "u3"], 40, pd.read_csv(tmp_path / "events.csv"), True, extend=True)
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["user", "rank", "item", "score"]
    assert [line[:3] for line in lines[1:]] == expected.iloc[:, :3].astype(str).to_numpy().tolist()
    assert "clicks on unknown items, left out: 1 (?)" in errors and "reads no searches" not in errors


def test_the_command_writes_files(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = runs("SASRec")
    write_lines(tmp_path / "items", "i3", "i1", "i2")
    monkeypatch.setattr(scores, "SCORES_AT_ONCE", 3 * 25)  # parts of 25 users
    expected = recommender.recommend(recommender.users, 2, candidates=["i1", "i2", "i3"])
    for ending in ("csv", "parquet", "jsonl"):
        paths = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
        for path in paths:
            command_line(runs.path("SASRec"), "--all", "-k", 2, "--candidates", tmp_path / "items", "--out", path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "one.csv"), expected)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one.parquet"), expected)
    found = pd.read_json(tmp_path / "one.jsonl", lines=True)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12)


# --- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"users": ["nobody", "no one"]}, "users who are not in the data: 2 (nobody, no one); give their events"),
        ({}, "nobody is asked for"),
        ({"users": []}, "there are no users"),
        ({"users": ["u1"], "k": 0}, "k must be at least 1"),
        ({"users": ["u1"], "candidates": ["?"]}, "none of the candidates"),
        ({"events": "events.txt"}, "end in .csv or .jsonl"),
        ({"events": "missing.csv"}, "missing.csv: file not found"),
    ],
)
def test_wrong_requests_are_refused(runs: Runs, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        runs("SASRec").recommend(**request_)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_a_user_known_by_training_alone_must_be_in_the_data(
    model: str, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    events = NONE.assign(user_id=["x"], event="click", item_id="i1", timestamp=5)
    expected = rf"{model} knows users by training alone; users who are not in the data: 1 \(x\)"
    with pytest.raises(UserError, match=expected):
        runs(model).recommend(events=events)
    with caplog.at_level(logging.WARNING):
        found = everything(runs(model), events=events.assign(user_id="u1"))
    assert f"{model} reads no histories: the events change no score" in caplog.text
    assert_same_scores(found, everything(runs(model), users=["u1"]))


def test_runs_that_are_not_what_they_were_are_refused(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs.path("GSERec"), folder)
    shutil.copytree(runs.folder / "data", tmp_path / "data")  # with the codes that the run made
    text = (folder / "arguments.json").read_text().replace(str(runs.folder), str(tmp_path))
    (folder / "arguments.json").write_text(text)
    with pytest.raises(UserError, match=r"arguments\.json: damaged: .* on purpose, remove its last entry, 'checksum'"):
        Recommender.load(folder)
    (folder / "arguments.json").write_text(re.sub(r',\s*"checksum": "\w+"', "", text))
    expected = runs("GSERec").recommend(["u1"])
    pd.testing.assert_frame_equal(recommend(folder, ["u1"]), expected)

    data = dict(RunFolder(folder).data())
    other = {**data, "codes": {**data["codes"], "hash": "0"}}
    write_sealed(folder / "data.json", other)
    with pytest.raises(UserError, match=r"the codes in .* have changed since this run"):
        Recommender.load(folder)
    write_sealed(folder / "data.json", data)
    weights = (folder / "best.pt").read_bytes()
    (folder / "best.pt").write_bytes(weights[:1000])
    with pytest.raises(UserError, match=r"best\.pt: not a checkpoint"):
        Recommender.load(folder)
    (folder / "best.pt").write_bytes(weights)
    with (tmp_path / "data" / "small" / "small.inter").open("a") as handle:
        handle.write("u1\ti1\t1700000000\n")
    with pytest.raises(UserError, match="files of data set 'small' have changed since this run"):
        Recommender.load(folder)
    (folder / "result.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        Recommender.load(folder)
    with pytest.raises(UserError, match="not the folder of a run"):
        Recommender.load(tmp_path)


def test_a_score_that_is_not_finite_is_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender.load(runs.path("SASRec"))
    recommender.model.item_embedding.weight.data[4] = torch.nan
    with pytest.raises(UserError, match="SASRec gives user 'u1' a score that is not finite"):
        recommender.recommend(["u1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.txt", "--all"], "must end in .csv, .parquet, .jsonl"),
        ([], "nobody is asked for"),
        (["--all", "--retrieve", "5"], "--retrieve and --check say something about --retriever"),
        (["--all", "--retriever", "x", "--check", "0"], "--check 0: at least 1 user is needed"),
        (["--all", "--extend"], "--extend says"),
        (["--users-file", "missing"], "missing: cannot be read"),
    ],
)
def test_wrong_options_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        command_line("folder", *options)


def test_data_without_searches_and_items_that_are_no_targets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_toy(tmp_path)
    values = {"data_path": str(tmp_path), "epochs": 1, "show_progress": False, "state": "WARNING",
              "require_both_histories": False, "eval_args": {"mode": "full"}}  # fmt: skip
    run("SASRec", "toy", config_dict={**values, "run_dir": str(tmp_path / "both")})
    assert recommend(tmp_path / "both", ["c"], candidates=["x", "i1"])["item_id"].tolist() == ["i1"]
    assert "candidates that nobody in the data interacted with, left out: 1 (x)" in caplog.text
    for suffix in ("search", "query"):
        (tmp_path / "toy" / f"toy.{suffix}").unlink()
    run("SASRec", "toy", config_dict={**values, "run_dir": str(tmp_path / "one")})
    search = {"user_id": "a", "event": "search", "query_id": "q1", "timestamp": 99}
    found = recommend(tmp_path / "one", ["a", "c"], 3, pd.DataFrame([search]), exclude_seen=True, extend=True)
    assert found["user_id"].tolist() == ["c"] * 3 and set(found["item_id"]) <= {"i1", "i2", "i3"}
