"""The stage of texts as a whole: what runs make of it, what it reads, and that it goes on where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, chat, chat_server, send
from conftest import load_dataset, write_lines, write_toy
from text_models import TextReader

from recbole_ser.cli import main
from recbole_ser.config import SERConfig
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.text_vectors import manifest_path, read_text_vectors
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.runner import resume, run
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import load_run
from recbole_ser.runs.result import RunResult, final_table
from recbole_ser.text.vectors.distinct import unit_rows
from recbole_ser.texts.stage import build_texts
from recbole_ser.tuning.space import check_space, read_space

READER = "text_models:TextReader"
SETTINGS: dict[str, Any] = {
    "vectors": {"backend": "tfidf_svd", "dimensions": 64}, "items": "attributes", "users": "template", "side": "rec",
    "factors": [], "max_records": 20, "max_clicks": 1, "until": 1.0,
}  # fmt: skip
COMMON = {"require_both_histories": False, "show_progress": False, "state": "INFO"}
USERS = 6


def write_logs(folder: Path, late: str = "") -> None:
    """Users buy at 0, 10, ... 60, of which the last two are held out, and searched before; user u5 never searched.

    Args:
        late: a word of the queries of the time that is held out, under which other items are clicked too.
    """
    inter, search, queries, items = [], [], [], []
    for user in range(USERS):
        for number in range(7):
            word, held_out = f"word{max(user, 1)}{number}", late if number >= 5 else ""
            inter.append(f"u{user} i-{word} {10 * number}")
            items.append(f"i-{word}\tTitle {word} thing")
            queries.append(f"q-{held_out}{word}\tfind{word} {held_out or 'now'}")
            if user != 5:
                clicks = f"i-word{user % 5 + 1}0,i-{word}" if held_out else f"i-{word}"
                search.append(f"u{user} q-{held_out}{word} {10 * number} {clicks}")
    write_toy(folder, inter=inter, search=search)
    write_lines(folder / "toy" / "toy.query", "query_id:token\tterms:token_seq", *dict.fromkeys(queries))
    write_lines(folder / "toy" / "toy.item", "item_id:token\ttitle:token_seq", *dict.fromkeys(items))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_logs(tmp_path)
    return tmp_path


def run_reader(folder: Path, name: str = "run", **values: Any) -> RunResult:
    values = {**COMMON, "epochs": 1, "eval_args": {"mode": "full"}, "data_path": str(folder), **values}
    return run(TextReader, "toy", config_dict={**values, "run_dir": str(folder / name)})


def texts_of(folder: Path, **settings: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """The vectors of items and users by raw id, and the manifest."""
    dataset = load_dataset(folder, "toy", require_both_histories=False)
    manifest = build_texts(dataset, {**SETTINGS, **settings}, folder / "x.texts")
    found = zip((dataset.iid_field, dataset.uid_field), read_text_vectors(folder / "x.texts", dataset))
    items, users = (dict(zip(dataset.field2id_token[field], texts.vectors.numpy())) for field, texts in found)
    return items, users, manifest


# --- runs and the command -------------------------------------------------------------------------------------------


def test_a_run_makes_the_texts_that_are_missing_and_records_them(folder: Path) -> None:
    result = run_reader(folder)
    made = folder / "toy" / "toy.texts"
    assert f"{made} is not there: making" in (folder / "run" / "log.txt").read_text()
    assert result.texts is not None and RunFolder.load(folder / "run").data()["texts"] == result.texts
    assert list(result.texts.values())[1:] == ["attributes", "template", "tfidf_svd"]
    assert f"{result.texts['hash'][:12]} (attributes, template, tfidf_svd)" in final_table(result)
    before = manifest_path(made).stat().st_mtime_ns
    assert run_reader(folder, "again").test == result.test and manifest_path(made).stat().st_mtime_ns == before
    assert resume(folder / "run", model=TextReader).test == result.test
    load_run(RunFolder.load(folder / "run"), SERDataset, TextReader)
    values = {"users": "mean"}
    other = run_reader(folder, "beside", texts=values, texts_folder=str(folder / "means")).texts
    assert other is not None and other["users"] == "mean" and other["hash"] != result.texts["hash"]
    with pytest.raises(ConfigError, match=r"toy\.texts was made with users template, not mean: name another place"):
        run_reader(folder, "other", texts=values)
    assert main(["texts", "-d", "toy", "-m", READER, f"--data_path={folder}", "--texts.max_records=1",
                 "--require_both_histories=false", "--show_progress=false"]) == 0  # fmt: skip
    with pytest.raises(UserError, match=r"the texts in .*toy\.texts have changed since this run"):
        load_run(RunFolder.load(folder / "run"), SERDataset, TextReader)


def test_texts_of_other_training_data_end_a_run(folder: Path) -> None:
    run_reader(folder)
    with (folder / "toy" / "toy.inter").open("a") as handle:
        handle.write("u3\ti-new\t1\n")
    with pytest.raises(DataError, match=r"toy\.texts: the texts were made from other data"):
        run_reader(folder, "other")


def test_the_command_prints_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["texts", "-d", "toy", f"--data_path={folder}", "--require_both_histories=false"]
    assert main([*common, "-m", READER]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].split() == ["items", "35", "35", "35", "attributes"]
    assert printed[3].split() == ["users", "6", "6", "5", "template"]  # two users did the same
    assert printed[4].startswith("vectors") and printed[4].endswith("dimensions, tfidf_svd")
    assert printed[5].split() == ["texts", str(folder / "toy" / "toy.texts")]
    assert main([*common, "-m", "SASRec"]) == 2
    assert "SASRec reads no texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ({"user": "mean"}, "did you mean 'users'"),
        ({"side": "left"}, "texts.side is 'left': it must be rec, search or both"),
        ({"items": "attribute"}, "texts.items: there is no back-end 'attribute': did you mean 'attributes'?"),
        ({"items": "template"}, "known are attributes, openai, transformers"),
        ({"items": {"backend": "attributes", "only": "title"}}, "'attributes' has no options"),
        ({"users": {"model": "x"}}, "texts.users: name the backend"),
        ({"users": {"backend": "template", "factors": ["mood"]}}, "has no option 'factors'"),
        ({"users": {"backend": "openai", "base_url": "http://x/v1", "model": "m", "factors": "mood"}}, "is no list of"),
        ({"vectors": "precomputed"}, "texts.vectors: there is no back-end 'precomputed'"),
        ({"factors": ["mood"]}, "none is asked: set texts.items or texts.users to one of openai, transformers"),
        ({"factors": [""]}, "texts.factors"),
        ({"max_records": 0}, "max_records is 0: it must be a whole number from 1"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_status_2(
    folder: Path, texts: Any, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-d", "toy", "-m", READER, f"--data_path={folder}", f"--texts={json.dumps(texts)}"]
    assert main(["texts", *arguments]) == 2
    assert complaint in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (folder / "toy" / "toy.texts").exists()


def test_factors_of_a_data_set_are_the_back_ends_that_ask_and_no_error_elsewhere(folder: Path) -> None:
    config = SERConfig(READER, "cds", None, {"data_path": str(folder)})
    assert "mood" in config["texts"]["factors"] and config["texts"]["users"] == "template"
    assert SERConfig(READER, "cds", None, {"texts.factors": ["price"]})["texts"]["factors"] == ["price"]
    texts_of(folder, factors=config["texts"]["factors"])


@pytest.mark.parametrize("blocked", ["items.npy", "users.npy", "texts.json"])
def test_what_cannot_be_written_is_found_out_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, blocked: str
) -> None:
    (folder / "x.texts" / blocked).mkdir(parents=True)
    monkeypatch.setattr("recbole_ser.texts.stage.item_texts", lambda *arguments: pytest.fail("work was done"))
    with pytest.raises(UserError, match=rf"{blocked}\S*: cannot be written: "):
        texts_of(folder)


# --- what the vectors are of ----------------------------------------------------------------------------------------


def test_items_and_users_are_in_one_space(folder: Path) -> None:
    items, users, manifest = texts_of(folder)
    assert not items["[PAD]"].any() and not users["[PAD]"].any()
    lengths = np.linalg.norm([*items.values(), *users.values()], axis=1)
    assert set(lengths.round(5).tolist()) == {0.0, 1.0} and manifest["dimension"] == len(items["i-word10"])
    np.testing.assert_array_equal(users["u0"], users["u1"])
    assert users["u2"] @ items["i-word20"] > users["u2"] @ items["i-word30"] + 0.1
    assert users["u2"] @ items["i-word20"] > users["u2"] @ items["i-word25"] + 0.1  # which is held out


@pytest.mark.parametrize("side", ["rec", "search", "both"])
def test_means_are_those_of_the_latest_training_events(folder: Path, side: str) -> None:
    items, users, _ = texts_of(folder, users="mean", side=side, max_records=2)
    if side == "rec":
        expected = items["i-word33"] + items["i-word34"]
        np.testing.assert_allclose(users["u3"], unit_rows(expected[None])[0], atol=1e-6)
    assert users["u5"].any() == (side != "search")  # who never searched
    assert users["u3"] @ items["i-word34"] > users["u3"] @ items["i-word32"] + 0.1


def test_only_the_first_part_of_the_training_period_is_read(folder: Path) -> None:
    items, users, _ = texts_of(folder, users="mean", max_records=2, until=0.5)  # three of five events
    expected = items["i-word31"] + items["i-word32"]
    np.testing.assert_allclose(users["u3"], unit_rows(expected[None])[0], atol=1e-6)


def test_a_mean_of_searches_is_that_of_queries_and_clicked_items(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Lengths:
        def describe(self) -> dict[str, Any]:
            return {"backend": "lengths"}

        def encode(self, texts: list[str], progress: bool = False) -> np.ndarray:
            seen.extend(texts)
            return unit_rows(np.array([[1.0, "find" in text, float(text[-1].isdigit())] for text in texts]))

    monkeypatch.setattr("recbole_ser.texts.stage.create_encoder", lambda **options: Lengths())
    _, users, _ = texts_of(folder, users="mean", side="search")
    of_query, of_item = unit_rows(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(users["u2"], unit_rows((of_query + of_item)[None])[0], atol=1e-6)
    assert "findword24 now" in seen and "findword25 now" not in seen, "only the queries that are read"


@pytest.mark.parametrize("users", ["template", "mean"])
@pytest.mark.parametrize("side", ["rec", "search", "both"])
def test_held_out_events_change_nothing(tmp_path: Path, users: str, side: str) -> None:
    made = []
    for late in ("", "late"):
        write_logs(tmp_path / (late or "early"), late)
        items, of_users, manifest = texts_of(tmp_path / (late or "early"), users=users, side=side)
        made.append((items, of_users, manifest["texts_hash"]))
    assert made[0][2] == made[1][2]
    for first, second in zip(made[0][:2], made[1][:2]):
        assert first.keys() == second.keys()
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


# --- language models ------------------------------------------------------------------------------------------------


def about(body: dict[str, Any]) -> str:
    """A summary that is a function of the prompt."""
    words = body["messages"][-1]["content"].replace('"', " ").split()
    return json.dumps({"summary": " ".join(sorted({word for word in words if "word" in word}))})


def served(server: ChatServer, **options: Any) -> dict[str, Any]:
    return {"backend": "openai", "base_url": server.url, "model": "small", "concurrency": 1, **options}


def test_a_language_model_is_asked_by_factors_once_and_about_nothing_that_is_held_out(folder: Path) -> None:
    with chat_server() as server:
        server.default = chat(about)
        settings = {"items": served(server), "users": served(server), "factors": ["mood", "era"], "side": "both"}
        items, users, manifest = texts_of(folder, **settings)
        asked = [body["messages"][-1]["content"] for body in server.requests]
        texts_of(folder, **settings)
        assert len(server.requests) == len(asked) == 35 + USERS - 1  # u0 and u1 are alike
    assert all("one after another: mood, era." in text for text in asked)
    of_users = [text for text in asked if "what one user did" in text]
    assert len(of_users) == USERS - 1 and not any(f"word{user}5" in t for t in of_users for user in range(USERS))
    assert sum("findword24" in text and "Title word24 thing" in text for text in of_users) == 1
    assert manifest["items"]["factors"] == manifest["users"]["factors"] == ["mood", "era"]
    assert users["u2"] @ items["i-word20"] > users["u2"] @ items["i-word30"] + 0.1


def test_an_interrupted_stage_leaves_no_manifest_and_goes_on_where_it_was(folder: Path) -> None:
    with chat_server() as server:
        answered = 7

        def refuse_later(handler: Any, body: dict[str, Any]) -> None:
            send(handler, 400, b"{}") if len(server.requests) > answered else chat(about)(handler, body)

        server.default = refuse_later
        with pytest.raises(UserError):
            texts_of(folder, items=served(server))
        assert not manifest_path(folder / "x.texts").exists()
        before, server.default = len(server.requests), chat(about)
        resumed = texts_of(folder, items=served(server))[2]
        assert len(server.requests) - before == 35 - answered
        assert resumed["report"].pop("answers")["items"] == {"items": {"asked": 35 - answered, "template": 0}}
        (folder / "texts_cache" / "items-openai.jsonl").unlink()
        again = texts_of(folder, items=served(server))[2]
        del again["report"]["answers"]
        assert again == resumed


def test_an_item_about_which_no_answer_is_of_use_keeps_its_text(folder: Path) -> None:
    with chat_server() as server:
        server.default = chat(lambda body: "nothing of use")
        found = texts_of(folder, items=served(server, ask_again=0, on_failure="template"))
        with pytest.raises(UserError, match=r"item row 0 \(items\), asked 1 times"):
            texts_of(folder, items=served(server, ask_again=0))
    np.testing.assert_array_equal(found[0]["i-word20"], texts_of(folder)[0]["i-word20"])


def test_a_sweep_over_texts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"texts\.side cannot be swept: .* trials must have the same data"):
        check_space(read_space({"texts.side": {"choice": ["rec", "both"]}}, "mine"), SERConfig(READER, "cds"), "mine")
