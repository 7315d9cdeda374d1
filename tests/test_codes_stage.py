"""The codes stage as a whole: what runs make of it, what it reads, and that it goes on where it was interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_server import ChatServer, chat, chat_server
from conftest import load_dataset, write_lines, write_toy
from sklearn.metrics import normalized_mutual_info_score

from recbole_ser.cli import main
from recbole_ser.codes.stage import build_codes
from recbole_ser.config import SERConfig
from recbole_ser.data.codes import manifest_path, read_codes
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.planted import generate
from recbole_ser.data.synthetic import PRESETS
from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.runner import resume, run
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.result import RunResult

ROOT = Path(__file__).parent.parent
TINY = {"epochs": 2, "levels": 2, "codebook_size": 4, "users_per_code": 2, "width": 4, "hidden": [8]}
SETTINGS: dict[str, Any] = {
    "summaries": "template", "vectors": "tfidf_svd", "max_records": 20, "max_clicks": 1, "until": 1.0,
    "missing_side": "copy", "rqvae": TINY,
}  # fmt: skip
QUICK = {"epochs": 1, "show_progress": False, "state": "INFO", "num_threads": 1, "codes": {"rqvae": TINY}}
USERS = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of eight users with seven purchases and searches each, ``heldout`` where they are held out.

    Users u0 and u1 did the very same; user u7 never searched.
    """
    inter, search, queries = [], [], ["q-common\tcommon words"]
    for user in range(USERS):
        for number in range(7):
            word = f"heldout{user}{number}" if number >= 5 else f"word{max(user, 1)}{number}"
            inter.append(f"u{user} i-{word} {10 * number}")
            queries.append(f"q-{word}\tfind {word}")
            if user != 7:
                search.append(f"u{user} q-{word} {10 * number} i-{word}")
    write_toy(tmp_path, inter=inter, search=search)
    write_lines(tmp_path / "toy" / "toy.query", "query_id:token\tterms:token_seq", *dict.fromkeys(queries))
    return tmp_path


def run_gserec(folder: Path, name: str = "run", **values: Any) -> RunResult:
    sizes = {"hidden_size": 8, "eval_args": {"mode": "full"}, "require_both_histories": False}
    values = {**QUICK, **sizes, "data_path": str(folder), "run_dir": str(folder / name), **values}
    return run("GSERec", "toy", config_dict=values)


def test_a_run_makes_the_codes_that_are_missing_and_records_them(folder: Path) -> None:
    result = run_gserec(folder)
    path = folder / "toy" / "toy.codes"
    assert result.codes is not None and result.codes["summaries"] == "template"
    assert f"{path} does not exist: making the codes" in (folder / "run" / "log.txt").read_text()
    assert RunFolder.load(folder / "run").data()["codes"] == result.codes
    assert json.loads(manifest_path(path).read_text())["codes_hash"] == result.codes["hash"]
    made = path.stat().st_mtime_ns
    again = run_gserec(folder, "again")
    assert path.stat().st_mtime_ns == made and again.test == result.test
    assert resume(folder / "run").test == result.test


def test_the_weights_do_not_depend_on_who_made_the_codes(folder: Path) -> None:
    for name in ("making", "reading"):
        run_gserec(folder, name)
    first, second = (torch.load(folder / n / "best.pt", weights_only=True) for n in ("making", "reading"))
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name


def test_a_run_refuses_codes_made_otherwise_than_it_asks(folder: Path) -> None:
    run_gserec(folder)
    with pytest.raises(ConfigError, match=r"toy\.codes was made with missing_side copy, not empty: name another place"):
        run_gserec(folder, "other", codes={"missing_side": "empty"})
    assert run_gserec(folder, "same", codes={"missing_side": "copy"}).codes
    other = folder / "other.codes"
    values = {"codes": {"missing_side": "empty", "rqvae": TINY}, "codes_file": str(other)}
    assert (
        run_gserec(folder, "beside", **values).codes["hash"] != RunFolder.load(folder / "run").data()["codes"]["hash"]
    )


def test_codes_of_other_training_data_end_a_run(folder: Path) -> None:
    run_gserec(folder)
    with (folder / "toy" / "toy.inter").open("a") as handle:
        handle.write("u3\ti-new\t1\n")
    with pytest.raises(DataError, match=r"toy\.codes: the codes were made from other data"):
        run_gserec(folder, "other")


def test_the_command_makes_them_anew_and_says_how_they_are_used(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset=toy", f"--data_path={folder}", "--show_progress=false", "--require_both_histories=false"]
    assert main(["codes", *arguments, f"--codes={json.dumps({'rqvae': TINY})}"]) == 0
    printed = capsys.readouterr().out
    assert "codes of toy: template summaries, tfidf_svd vectors" in printed and "level 2: in use" in printed
    assert printed.rstrip().endswith(str(folder / "toy" / "toy.codes"))
    before = (folder / "toy" / "toy.codes").read_bytes()
    assert main(["codes", *arguments, f"--codes={json.dumps({'rqvae': TINY})}"]) == 0
    assert (folder / "toy" / "toy.codes").read_bytes() == before


@pytest.mark.parametrize(
    ("codes", "complaint"),
    [
        ({"summarys": "template"}, "did you mean 'summaries'"),
        ({"summaries": "gpt"}, "codes.summaries: there is no back-end 'gpt'"),
        ({"summaries": {"model": "x"}}, "name the backend"),
        ({"missing_side": "drop"}, "missing_side is 'drop': it must be copy or empty"),
        ({"max_records": 0}, "max_records is 0: it must be a whole number from 1"),
        ({"rqvae": {"level": 3}}, "rqvae has no key 'level'"),
        ({"rqvae": {"levels": 0}}, "rqvae.levels is 0: it must be a whole number from 1"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_status_2(
    folder: Path, codes: Any, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["codes", "--dataset=toy", f"--data_path={folder}", f"--codes={json.dumps(codes)}"]) == 2
    assert complaint in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (folder / "toy" / "toy.codes").exists()


def codes_of(folder: Path, **settings: Any) -> dict[str, tuple[list[int], list[int]]]:
    """By user, the codes of the search and of the recommendation side."""
    dataset = load_dataset(folder, "toy", "GSERec", require_both_histories=False)
    build_codes(dataset, {**SETTINGS, **settings}, folder / "x.codes")
    codes = read_codes(folder / "x.codes", dataset)
    users = dataset.id2token("user_id", np.arange(1, dataset.user_num))
    return {u: (s, r) for u, s, r in zip(users, codes.search[1:].tolist(), codes.rec[1:].tolist())}


def test_users_who_did_the_same_share_their_codes(folder: Path) -> None:
    codes = codes_of(folder)
    assert codes["u0"] == codes["u1"]
    assert len({str(both) for both in codes.values()}) > 2


def test_a_user_without_searches_has_the_codes_of_the_other_text_or_none(folder: Path) -> None:
    assert all(codes_of(folder)["u7"][0])
    search, rec = codes_of(folder, missing_side="empty")["u7"]
    assert not any(search) and all(rec)


def test_codes_of_the_sample_find_the_communities_of_users_who_search_seldom_too(tmp_path: Path) -> None:
    config = SERConfig("GSERec", "ser-sample", None, {"codes_file": str(tmp_path / "x.codes")})
    dataset = SERDataset(config)
    settings = {**config["codes"], "rqvae": {**config["codes"]["rqvae"], "epochs": 60}}
    build_codes(dataset, settings, config["codes_file"])
    logs = generate(PRESETS["ser-sample"])
    numbers = [int(token[1:]) for token in dataset.id2token("user_id", np.arange(1, dataset.user_num))]
    community, level = logs.user_community[numbers], logs.user_level[numbers]
    for codes in (dataset.user_codes.search, dataset.user_codes.rec):
        first = codes[1:, 0].numpy()
        for among in (level == 0, level == 1):  # rich, sparse
            assert normalized_mutual_info_score(community[among], first[among]) > 0.4
            assert normalized_mutual_info_score(community[among], np.roll(first, 1)[among]) < 0.25  # of other users


def about(body: dict[str, Any]) -> str:
    """A summary that is a function of the prompt."""
    found = sorted({word for word in body["messages"][-1]["content"].split() if word.startswith("word")})
    return json.dumps({"summary": " ".join(found) or "nothing"})


def served(server: ChatServer) -> dict[str, Any]:
    return {"backend": "openai", "base_url": server.url, "model": "small", "concurrency": 2}


def test_no_held_out_event_reaches_a_language_model(folder: Path) -> None:
    with chat_server() as server:
        server.default = chat(about)
        codes_of(folder, summaries=served(server))
        asked = json.dumps(server.requests)
    assert len(server.requests) == 2 * (USERS - 1) - 1  # u0 and u1 once, and u7 about one side only
    assert "heldout" not in asked and "word14" in asked


@pytest.mark.slow
def test_a_killed_stage_leaves_no_codes_and_goes_on_where_it_was(folder: Path) -> None:
    stuck, release, answered = threading.Event(), threading.Event(), 6

    def get_stuck(handler: Any, body: dict[str, Any]) -> None:
        if len(server.requests) > answered:
            stuck.set()
            release.wait(30)
            return
        chat(about)(handler, body)

    with chat_server() as server:
        server.default = get_stuck
        settings = {**SETTINGS, "summaries": {**served(server), "concurrency": 1}}
        path = folder / "toy" / "toy.codes"
        arguments = [f"--data_path={folder}", f"--codes={json.dumps(settings)}", "--require_both_histories=false"]
        command = [sys.executable, "-m", "recbole_ser.cli", "codes", "--dataset=toy", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            assert stuck.wait(100), "the stage did not get so far"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            release.set()
        assert not path.exists() and not manifest_path(path).exists()
        before = len(server.requests)
        server.default = chat(about)
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        assert len(server.requests) - before == 2 * (USERS - 1) - 1 - answered
        resumed = path.read_bytes()
        (folder / "toy" / "codes_cache" / "summaries-openai.jsonl").unlink()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert path.read_bytes() == resumed


@pytest.mark.parametrize("blocked", ["toy.codes", "toy.codes.json", "codes_cache"])
def test_what_cannot_be_written_is_found_out_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, blocked: str
) -> None:
    dataset = load_dataset(folder, "toy", "GSERec", require_both_histories=False)
    place = folder / "codes"
    place.mkdir()
    if blocked == "codes_cache":
        (place / blocked).write_text("")
    else:
        (place / blocked).mkdir()
    monkeypatch.setattr("recbole_ser.codes.stage.training_events", lambda *arguments: pytest.fail("work was done"))
    vectors = {"backend": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(UserError, match=rf"{blocked}\S*: cannot be written: "):
        build_codes(dataset, {**SETTINGS, "vectors": vectors}, place / "toy.codes")
    assert [path.name for path in place.iterdir()] == [blocked]


@pytest.mark.parametrize("missing_side", ["copy", "empty"])
def test_users_can_be_means_of_what_they_searched_for_and_chose(folder: Path, missing_side: str) -> None:
    dataset = load_dataset(folder, "toy", "GSERec", require_both_histories=False)
    settings = {**SETTINGS, "summaries": "mean", "missing_side": missing_side}
    manifest = build_codes(dataset, settings, folder / "mean.codes")
    assert manifest["summaries"] == {"backend": "mean"}
    codes = read_codes(folder / "mean.codes", dataset)
    first, second, silent = dataset.token2id("user_id", ["u0", "u1", "u7"])
    assert torch.equal(codes.rec[first], codes.rec[second]) and torch.equal(codes.search[first], codes.search[second])
    assert codes.rec[1:].all() and bool(codes.search[silent].any()) == (missing_side == "copy")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"summaries": {"backend": "mean", "model": "m"}}, "codes.summaries: 'mean' has no options"),
        (
            {"summaries": "mean", "vectors": {"backend": "precomputed", "search": "s", "rec": "r"}},
            "there is nothing to take means of",
        ),
        ({"summaries": "means"}, "codes.summaries: there is no back-end 'means': did you mean 'mean'"),
        ({"until": 0.0}, "until"),
    ],
)
def test_means_that_cannot_be_are_refused(folder: Path, changed: dict[str, Any], problem: str) -> None:
    dataset = load_dataset(folder, "toy", "GSERec", require_both_histories=False)
    with pytest.raises(ConfigError, match=problem):
        build_codes(dataset, {**SETTINGS, **changed}, folder / "toy.codes")
