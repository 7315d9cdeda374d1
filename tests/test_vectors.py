from __future__ import annotations

import json
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_ser.errors import ConfigError, DataError, UserError
from recbole_ser.text.openai_api import Client
from recbole_ser.text.vectors import ENCODERS, create_encoder, encode_sides
from recbole_ser.text.vectors.distinct import encode_distinct
from recbole_ser.text.vectors.local import LocalEncoder
from recbole_ser.text.vectors.openai import OpenAIEncoder
from recbole_ser.text.vectors.precomputed import Precomputed
from recbole_ser.text.vectors.tfidf_svd import TfidfSVD, unspaced

Local = Callable[..., LocalEncoder]

TEXTS = ["red shoe", "", "blue wool hat", "red shoe", "big red hat"]
FRAME = "Searches: {}. Terms: {}"


def norms(vectors: np.ndarray) -> list[float]:
    return np.linalg.norm(vectors, axis=1).round(5).tolist()


# --- all back-ends ----------------------------------------------------------------------------------------------------


def test_an_unknown_back_end_names_the_known() -> None:
    with pytest.raises(ConfigError, match="did you mean 'tfidf_svd'") as error:
        create_encoder("tfidf", "cache")
    assert all(name in str(error.value) for name in ENCODERS)


def test_unknown_and_missing_options_are_named() -> None:
    with pytest.raises(ConfigError, match="no option 'size': known are dimensions, analyser, seed"):
        create_encoder("tfidf_svd", "cache", size=3)
    with pytest.raises(ConfigError, match="needs the option 'rec'"):
        create_encoder("precomputed", "cache", search="s.npy", rec=None)
    encoder = create_encoder("tfidf_svd", "cache", dimensions=2)
    assert isinstance(encoder, TfidfSVD) and encoder.describe()["dimensions"] == 2


def test_rows_have_length_one_and_equal_texts_are_encoded_once() -> None:
    asked: list[list[str]] = []

    def encode(texts: list[str]) -> np.ndarray:
        asked.append(texts)
        return np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]])

    vectors = encode_distinct(["a", " ", "b", "a", "c", ""], encode)
    assert asked == [["a", "b", "c"]] and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0], [0, 0], [0.6, 0.8], [0, 1], [0, 0]], rtol=1e-6)
    with pytest.raises(UserError, match="every text is empty"):
        encode_distinct(["", "\n"], encode)


def test_both_sides_are_encoded_together() -> None:
    search, rec = encode_sides(TfidfSVD(), ["red shoe", "", "wool"], ["big hat", "red shoe", "blue wool"])
    assert search.shape == rec.shape == (3, 4)  # as many dimensions as distinct texts
    np.testing.assert_array_equal(search[0], rec[1])
    assert norms(search) == [1.0, 0.0, 1.0]
    assert search[2] @ rec[2] > 0.5 > 0.1 > abs(search[2] @ rec[0])


# --- TF-IDF -----------------------------------------------------------------------------------------------------------


def test_cosines_are_those_of_tf_idf_where_nothing_is_cut_off() -> None:
    a, b, c = TfidfSVD().encode(["red shoe", "red hat", "Shoe shoe RED"])
    # 3 texts: "red" is in all of them, "shoe" in two, "hat" in one; weight (1 + ln tf) (1 + ln((1 + n) / (1 + df)))
    red, shoe, hat = 1.0, 1.0 + math.log(4 / 3), 1.0 + math.log(4 / 2)
    twice = (1.0 + math.log(2)) * shoe
    assert a @ b == pytest.approx(red**2 / (math.hypot(red, shoe) * math.hypot(red, hat)), abs=1e-5)
    expected = (red**2 + shoe * twice) / (math.hypot(red, shoe) * math.hypot(red, twice))
    assert a @ c == pytest.approx(expected, abs=1e-5)


def test_dimensions_are_as_asked_or_as_many_as_there_are() -> None:
    texts = [f"w{number} w{number + 1} w{2 * number}" for number in range(40)]
    assert TfidfSVD(dimensions=7).encode(texts).shape == (40, 7)
    assert TfidfSVD().encode(texts).shape[1] == 40
    assert TfidfSVD().encode(["one", "one"]).tolist() == [[1.0], [1.0]]


def test_the_seed_decides() -> None:
    generator = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in generator.integers(0, 200, 8)) for _ in range(150)]
    first, again, other = (TfidfSVD(8, seed=seed).encode(texts) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_equal_words_in_other_writing_are_equal() -> None:
    a, b = TfidfSVD().encode(["RED ＳＨＯＥ", "red shoe!"])
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_vowel_sign_is_part_of_its_word() -> None:
    a, b = TfidfSVD(analyser="word").encode(["\u0915\u0940", "\u0915\u093e"])  # the same letter with two vowels
    assert abs(a @ b) < 1e-5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red shoe", False),
        ("\u7ea2\u8272\u8fde\u8863\u88d9", True),
        ("\u7ea2\u8272 \u9ad8\u8ddf \u978b", True),
        (FRAME.format("\u7ea2\u8272\u8fde\u8863\u88d9", "\u9ad8\u8ddf\u978b; iPhone"), True),
        (FRAME.format("red shoes from \u4eac\u90fd", "red; shoes"), False),
        ("\u30bb\u30fc\u30bf\u30fc", True),
        ("\ube68\uac04 \uad6c\ub450", False),  # Korean has spaces
        ("supercalifragilistic", False),
        ("supercalifragilistic" * 2, True),
        ("!!!", False),
    ],
)
def test_unspaced(text: str, expected: bool) -> None:
    assert unspaced(text) is expected


def test_texts_without_spaces_are_compared_by_groups_of_characters() -> None:
    texts = ["\u7ea2\u8272\u8fde\u8863\u88d9", "\u7ea2\u8272\u9ad8\u8ddf\u978b", "\u624b\u673a\u58f3"]
    a, b, c = TfidfSVD().encode(texts)
    assert a @ b > 0.1 and abs(a @ c) < 1e-5
    words = TfidfSVD(analyser="word").encode(texts)
    assert abs(words[0] @ words[1]) < 1e-5
    mixed = ["red shoe", "blue hat", "redder", *texts[:2]]  # fewer than half
    assert abs(TfidfSVD().encode(mixed)[0] @ TfidfSVD().encode(mixed)[2]) < 1e-5


def test_texts_without_words_have_rows_of_zeros() -> None:
    assert norms(TfidfSVD().encode(["?!", "red", "..."])) == [0.0, 1.0, 0.0]
    assert norms(TfidfSVD().encode(["?!", "..."])) == [0.0, 0.0]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="'words' is not known: use any of auto, word, char"):
        TfidfSVD(analyser="words")
    with pytest.raises(ConfigError, match="dimensions: 0"):
        TfidfSVD(dimensions=0)


# --- precomputed ------------------------------------------------------------------------------------------------------


def test_precomputed_rows_are_scaled_and_split_by_side(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.save(tmp_path / "r.npy", np.array([[0.0, 2.0], [1.0, 0.0]], dtype=np.float32))
    encoder = Precomputed(tmp_path / "s.npy", tmp_path / "r.npy")
    search, rec = encode_sides(encoder, ["a", "b"], ["", "d"])
    np.testing.assert_allclose(search, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(rec, [[0.0, 1.0], [1.0, 0.0]])
    assert search.dtype == rec.dtype == np.float32
    before = encoder.describe()
    np.save(tmp_path / "r.npy", np.ones((2, 2)))
    after = encoder.describe()
    assert before["search"] == after["search"] and before["rec"] != after["rec"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (np.ones((3, 2)), "has 3 rows, the data set 2 users"),
        (np.ones(2), r"holds float64 \[2\], not floats"),
        (np.ones((2, 2), dtype=np.int64), r"holds int64 \[2, 2\]"),
        (np.array([[1.0, 2.0], [np.nan, 0.0]]), r"row 1 \(from 0\) holds NaN"),
        (np.array([[{}, 1], [2, 3]], dtype=object), "cannot be read"),
        (np.ones((2, 3)), "has 2 dimensions, .*r.npy has 3"),
    ],
)
def test_precomputed_files_that_do_not_fit(content: np.ndarray, complaint: str, tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", content)
    np.save(tmp_path / "s.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match=complaint):
        Precomputed(tmp_path / "r.npy", tmp_path / "s.npy").encode(["a", "b", "c", "d"])


def test_vectors_of_any_size_keep_their_direction(tmp_path: Path) -> None:
    """Squares of large numbers are infinite, and those of small ones 0."""
    for kind, factor in ((np.float32, 1e38), (np.float32, 1e-38), (np.float64, 1e308), (np.float64, 1e-300)):
        vectors = encode_distinct(["a", "b"], lambda texts, k=kind, f=factor: np.array([[3, 4], [0, 0]], k) / 5 * k(f))
        np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    for wrong in (np.nan, np.inf):
        with pytest.raises(UserError, match="the vector of the text 'b' holds NaN or an infinity"):
            encode_distinct(["a", "b"], lambda texts, value=wrong: np.array([[1.0, 0.0], [value, 1.0]]))


def test_a_precomputed_file_that_promises_too_much_is_one_line(tmp_path: Path) -> None:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (4, 1000000000000), }"
    for name, text in (
        ("big", header),
        ("deep", "(" * 10_000),
        ("none", "{}"),
        ("flat", header.replace("1000000000000", "0")),
    ):
        content = b"\x93NUMPY\x01\x00" + len(text + "\n").to_bytes(2, "little") + text.encode() + b"\n" + b"\0" * 64
        (tmp_path / f"{name}.npy").write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.npy: (cannot be read|holds)") as caught:
            Precomputed(tmp_path / f"{name}.npy", tmp_path / f"{name}.npy").encode(["a"] * 8)
        assert str(caught.value).isprintable()
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04" + b"\0" * 50)
    with pytest.raises(DataError, match=r"zip\.npy: cannot be read"):
        Precomputed(tmp_path / "zip.npy", tmp_path / "zip.npy").encode(["a"] * 2)


def test_precomputed_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)))
    for name, complaint in [("none.npy", "not found"), ("text.npy", "cannot be read"), ("two.npz", "an archive")]:
        with pytest.raises(DataError, match=f"{name}.*{complaint}"):
            Precomputed(tmp_path / name, tmp_path / name).encode(["a", "b", "c", "d"])


# --- a local transformer ----------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path) -> Local:
    """Makes encoders with a folder, which share a cache."""
    return partial(LocalEncoder, tmp_path / "cache" / "vectors.jsonl")


def plain_vector(folder: Path, ids: list[int], pooling: str) -> np.ndarray:
    """One text alone, without padding."""
    from transformers import BertModel

    with torch.no_grad():
        states = BertModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0]
    vector = (states.mean(dim=0) if pooling == "mean" else states[0]).numpy()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_text_has_the_same_vector_in_any_batch(pooling: str, model_folder: Path, local: Local) -> None:
    vectors = local(model_folder, pooling, batch_size=2).encode(TEXTS)
    assert vectors.shape == (5, 8) and vectors.dtype == np.float32 and not vectors[1].any()
    for row, ids in {0: [2, 4, 6, 3], 2: [2, 5, 8, 7, 3], 3: [2, 4, 6, 3], 4: [2, 9, 4, 7, 3]}.items():
        np.testing.assert_allclose(vectors[row], plain_vector(model_folder, ids, pooling), atol=1e-5)


def test_long_texts_are_cut(model_folder: Path, local: Local) -> None:
    encoder = local(model_folder, max_length=4)
    vector = encoder.encode(["red shoe " + "hat " * 40])[0]
    np.testing.assert_allclose(vector, plain_vector(model_folder, [2, 4, 6, 3], "mean"), atol=1e-5)
    assert local(model_folder).encode(["hat " * 40]).shape == (1, 8)  # the tokenizer knows the model's limit


def write_sentence_transformer(folder: Path, kinds: list[str], pooling: dict[str, Any]) -> None:
    """The files in which sentence-transformers says what it does after the transformer."""
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": f"{n}_{kind}"} for n, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 8}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls", "embedding_dimension": 8}, "cls"),
    ],
)
def test_pooling_and_length_are_those_the_folder_declares(
    pooling: Any, expected: str, tmp_path: Path, local: Local
) -> None:
    write_sentence_transformer(tmp_path / "st", ["Transformer", "Pooling", "Normalize"], pooling)
    encoder = local(tmp_path / "st")
    assert (encoder.pooling, encoder.max_length) == (expected, 7)
    assert local(tmp_path / "st", pooling="mean", max_length=5).describe()["max_length"] == 5


@pytest.mark.parametrize(
    ("kinds", "pooling", "complaint"),
    [
        (["Transformer", "Pooling", "Dense"], {"pooling_mode": "cls"}, "module Dense is not supported"),
        (["Transformer", "Pooling"], {"pooling_mode": "max"}, "pools by max"),
        (["Transformer", "Pooling"], {"pooling_mode": ["mean", "max"]}, "not by mean or cls"),
        (["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "not by"),
    ],
)
def test_what_a_folder_does_besides_is_refused(
    kinds: list[str], pooling: Any, complaint: str, tmp_path: Path, local: Local
) -> None:
    write_sentence_transformer(tmp_path / "st", kinds, pooling)
    with pytest.raises(DataError, match=complaint):
        local(tmp_path / "st")


def test_a_model_is_known_by_its_files(tmp_path: Path, local: Local) -> None:
    described = []
    for name, weights in [("a/bge", b"1"), ("b/bge", b"1"), ("c/bge", b"2")]:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        described.append(local(tmp_path / name).describe())
    assert described[0] == described[1] != described[2] and str(tmp_path) not in json.dumps(described)


def test_a_missing_library_or_folder_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Local
) -> None:
    with pytest.raises(DataError, match="there is no config"):
        local(tmp_path)
    with pytest.raises(ConfigError, match="'max' is not known"):
        local(tmp_path, pooling="max")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'pip install "recbole_ser\[llm\]"'):
        local(tmp_path).encode(["red"])


def test_weights_that_are_no_safetensors_are_read_without_running_code(
    model_folder: Path, tmp_path: Path, local: Local
) -> None:
    from transformers import BertModel

    expected = local(model_folder).encode(TEXTS)
    folder = shutil.copytree(model_folder, tmp_path / "model")
    weights = BertModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    np.testing.assert_array_equal(local(folder).encode(TEXTS), expected)
    torch.save({**weights, "more": Planted(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="the model cannot be used"):
        local(folder).encode(TEXTS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[" * 100_000), ("config.json", "7"), ("config.json", "{}"), ("config.json", "\0"),
        ("config.json", '{"model_type": "bert", "hidden_size": "big"}'), ("tokenizer.json", "[" * 100_000),
        ("config.json", '{"model_type": "bert", "hidden_size": 7, "num_attention_heads": 0}'),
        ("tokenizer.json", "{}"), ("tokenizer_config.json", "7"), ("model.safetensors", ""),
        ("model.safetensors", "\xff" * 100), ("modules.json", "[" * 100_000), ("modules.json", '[{"type": 7}]'),
        ("sentence_bert_config.json", '{"max_seq_length": "long"}'),
        ("config.json", '{"model_type": "x", "auto_map": {"AutoConfig": "x.X", "AutoModel": "x.X"}}'),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_line(
    model_folder: Path, tmp_path: Path, file: str, content: str, local: Local
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "modules.json").write_text("[]")
    (folder / "x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / file).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=str(folder)) as caught:
        local(folder).encode(TEXTS)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
    assert not (tmp_path / "ran").exists()


def test_a_model_that_makes_no_numbers_is_one_line(model_folder: Path, tmp_path: Path, local: Local) -> None:
    from transformers import BertModel

    folder = shutil.copytree(model_folder, tmp_path / "model")
    model = BertModel.from_pretrained(folder)
    torch.nn.init.constant_(model.embeddings.word_embeddings.weight, float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(UserError, match="the vector of the text 'red shoe' holds NaN"):
        local(folder).encode(TEXTS)


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


# --- a server ---------------------------------------------------------------------------------------------------------


class Server:
    """Embeds a text as (its length, 1); requests that hold a text of ``refused`` get status 400."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.keys: list[str | None] = []
        self.refused: set[str] = set()
        self.slow: set[str] = set()
        self.width = 2
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = server.answer(body["input"])
                server.keys.append(self.headers.get("Authorization"))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, texts: list[str]) -> tuple[int, Any]:
        self.requests.append(texts)
        if self.refused & set(texts):
            return 400, {"error": {"message": "too long"}}
        if self.slow & set(texts):
            time.sleep(0.2)
        vectors = [[float(len(text)), *[1.0] * (self.width - 1)] for text in texts]
        return 200, {"data": [{"index": n, "embedding": v} for n, v in reversed(list(enumerate(vectors)))]}


@pytest.fixture
def server() -> Iterator[Server]:
    fake = Server()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


def expected_vectors(texts: list[str]) -> np.ndarray:
    rows = np.array([[len(text), 1.0] if text else [0.0, 0.0] for text in texts])
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def test_vectors_of_a_server_keep_the_order_of_the_texts(server: Server, tmp_path: Path) -> None:
    server.slow = {"red shoe"}  # its answer arrives last
    encoder = create_encoder("openai", tmp_path, base_url=server.url, model="m", batch_size=1)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected_vectors(TEXTS), rtol=1e-6)
    assert sorted(server.requests) == [["big red hat"], ["blue wool hat"], ["red shoe"]]
    assert (tmp_path / "vectors-openai.jsonl").is_file()


def test_what_has_arrived_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    def encode(texts: list[str]) -> np.ndarray:
        return OpenAIEncoder(tmp_path / "c.jsonl", Client(server.url, "m", concurrency=1), batch_size=2).encode(texts)

    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    server.refused = {"dddd"}
    with pytest.raises(UserError, match="too long"):
        encode(texts)
    assert server.requests == [["a", "bb"], ["ccc", "dddd"]]
    server.refused = set()
    np.testing.assert_allclose(encode(texts), expected_vectors(texts), rtol=1e-6)
    assert server.requests[2:] == [["ccc", "dddd"], ["eeeee"]]
    np.testing.assert_allclose(encode(texts[::-1]), expected_vectors(texts[::-1]), rtol=1e-6)
    assert len(server.requests) == 4


def test_the_key_is_sent_and_kept_nowhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1234")
    encoder = OpenAIEncoder(tmp_path / "c.jsonl", Client(server.url, "m", api_key_variable="MY_KEY"))
    encoder.encode(["red"])
    assert server.keys == ["Bearer secret-1234"]
    assert encoder.describe() == {"backend": "openai", "model": "m"}
    assert "secret" not in (tmp_path / "c.jsonl").read_text()
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="'MY_KEY' is not set"):
        OpenAIEncoder(tmp_path / "c.jsonl", Client(server.url, "m", api_key_variable="MY_KEY"))


def test_a_server_that_has_changed_its_model_is_noticed(server: Server, tmp_path: Path) -> None:
    OpenAIEncoder(tmp_path / "c.jsonl", Client(server.url, "m")).encode(["red"])
    OpenAIEncoder(tmp_path / "c.jsonl", Client(server.url, "other")).encode(["red"])
    assert len(server.requests) == 2
    server.width = 3
    before = (tmp_path / "c.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"vectors of 'm' have 2 and 3 dimensions .*remove the file"):
        OpenAIEncoder(tmp_path / "c.jsonl", Client(server.url, "m")).encode(["red", "blue"])
    assert (tmp_path / "c.jsonl").read_bytes() == before, "what does not fit is not kept"


@pytest.mark.parametrize(
    "value",
    [7, ["AACAPw=="], "AACAPw=", "no base 64", "", "AACAfw==", "AADAfw==", "AACA/w==", "AAA="],
    ids=["number", "list", "padding", "letters", "empty", "infinity", "NaN", "-infinity", "bytes"],
)
def test_a_damaged_vector_in_the_cache_is_named_by_its_line(server: Server, tmp_path: Path, value: Any) -> None:
    path = tmp_path / "c.jsonl"
    encoder = OpenAIEncoder(path, Client(server.url, "m"))
    encoder.encode(["red", "blue"])
    lines = path.read_text().splitlines(keepends=True)
    damaged = lines[1].partition('"value": ')[0] + f'"value": {json.dumps(value)}}}\n'
    path.write_text(lines[0] + damaged)
    with pytest.raises(DataError, match=r"c\.jsonl:2: the cached vector .*\(remove this line"):
        encoder.encode(["red", "blue"])
    path.write_text(lines[0])
    np.testing.assert_allclose(encoder.encode(["red", "blue"]), expected_vectors(["red", "blue"]), rtol=1e-6)
    assert server.requests == [["red", "blue"], ["blue"]]


def test_batches_hold_at_least_one_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size: 0"):
        OpenAIEncoder(tmp_path / "c.jsonl", Client("http://127.0.0.1:1/v1", "m"), batch_size=0)
