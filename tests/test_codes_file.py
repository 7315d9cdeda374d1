"""The file of codes: what is written is read again, and nothing that belongs to other data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_ser.data.codes import UserCodes, manifest_path, read_codes, training_hash, write_codes
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import DataError
from recbole_ser.files import sha256

Toy = Callable[..., SERDataset]

HEADER = "user_id:token\tsearch_codes:token_seq\trec_codes:token_seq"
SEARCH = np.array([[0, 0, 1], [-1, -1, -1], [0, 1, 1]])  # of the users a, b, c
ORIGIN = {"settings": {}, "summaries": {"backend": "template"}, "vectors": {"backend": "tfidf_svd", "dimensions": 8}}
REC = np.array([[5, 7, 0], [5, 7, 1], [5, 7, 0]])
INTER = [
    "a i1 10", "a i2 20", "a i3 30", "a i4 40", "a i5 50",
    "b i2 15", "b i1 25", "b i3 35", "b i4 45", "c i4 11",
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "codes" / "toy.codes"


def written(path: Path, dataset: SERDataset, search: np.ndarray = SEARCH, rec: np.ndarray = REC) -> Path:
    write_codes(path, dataset, search, rec, ORIGIN)
    return path


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of the file, and let the manifest say that it is still the one."""
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))
    manifest = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**manifest, "codes_hash": sha256(path)}))


def refusal(path: Path, dataset: SERDataset) -> str:
    """The one line that says what is wrong, and what to do about it."""
    with pytest.raises(DataError) as caught:
        read_codes(path, dataset)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


# --- writing and reading --------------------------------------------------------------------------------------------


def test_the_file_is_atomic_and_its_manifest_says_what_it_is(toy: Toy, path: Path) -> None:
    dataset = toy()
    returned = write_codes(path, dataset, SEARCH, REC, ORIGIN)
    assert path.read_text().splitlines() == [
        HEADER, "a\t1-0 2-0 3-1\t1-5 2-7 3-0", "b\t\t1-5 2-7 3-1", "c\t1-0 2-1 3-1\t1-5 2-7 3-0",
    ]  # fmt: skip
    assert json.loads(manifest_path(path).read_text()) == returned == {
        **ORIGIN, "training_hash": training_hash(dataset), "codes_hash": sha256(path),
    }  # fmt: skip
    assert sorted(file.name for file in path.parent.iterdir()) == ["toy.codes", "toy.codes.json"]


def test_codes_are_numbered_from_1_on_each_side_and_levels_are_distinct(toy: Toy, path: Path) -> None:
    dataset = toy()
    codes = read_codes(written(path, dataset), dataset)
    assert codes.search.tolist() == [[0, 0, 0], [1, 2, 3], [0, 0, 0], [1, 4, 3]]
    assert codes.rec.tolist() == [[0, 0, 0], [1, 2, 3], [1, 2, 4], [1, 2, 3]]
    assert (codes.search_num, codes.rec_num) == (5, 5)
    assert codes.search.dtype == codes.rec.dtype == torch.int64
    assert codes.hash == sha256(path) and codes.origin.items() >= ORIGIN.items()


def test_the_sides_are_numbered_apart_and_may_have_different_levels(toy: Toy, path: Path) -> None:
    dataset = toy()
    codes = read_codes(written(path, dataset, rec=np.array([[3], [3], [9]])), dataset)
    assert codes.search.shape == (4, 3) and codes.search_num == 5
    assert codes.rec.tolist() == [[0], [1], [1], [2]] and codes.rec_num == 3


def test_users_with_equal_codes_share_them_and_others_do_not(toy: Toy, path: Path) -> None:
    dataset = toy()
    drawn = np.random.default_rng(0).integers(-1, 3, size=(2, 3, 6))
    drawn[:, 2] = drawn[:, 0]
    codes = read_codes(written(path, dataset, *drawn), dataset)
    for found, made in ((codes.search, drawn[0]), (codes.rec, drawn[1])):
        kept = [[(level, code) for level, code in enumerate(row) if code >= 0] for row in made.tolist()]
        numbers = [[code for code in row if code] for row in found[1:].tolist()]
        number_of = {name: number for names, row in zip(kept, numbers) for name, number in zip(names, row)}
        assert numbers == [[number_of[name] for name in names] for names in kept]
        assert sorted(number_of.values()) == list(range(1, len(number_of) + 1))
        assert torch.equal(found[1], found[3]) and not torch.equal(found[1], found[2])


def test_a_level_without_a_code_is_left_out_and_the_rest_moves_up(toy: Toy, path: Path) -> None:
    dataset = toy()
    codes = read_codes(written(path, dataset, np.array([[-1, 4, -1], [3, 4, 5], [-1, -1, 5]])), dataset)
    assert codes.search.tolist() == [[0, 0, 0], [1, 0, 0], [2, 1, 3], [3, 0, 0]]


def test_a_side_may_have_no_codes_at_all(toy: Toy, path: Path) -> None:
    dataset = toy()
    codes = read_codes(written(path, dataset, search=np.full((3, 2), -1)), dataset)
    assert not codes.search.any() and codes.search.shape == (4, 1) and codes.search_num == 1


def structure(codes: UserCodes) -> list[list[list[bool]]]:
    """Which places of which users hold the same code, which the numbers do not matter for."""
    flat = [table.flatten() for table in (codes.search, codes.rec)]
    return [((side == side.unsqueeze(1)) & (side > 0)).tolist() for side in flat]


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_rows_may_come_in_any_order(toy: Toy, path: Path, order: tuple[int, ...]) -> None:
    dataset = toy()
    expected = read_codes(written(path, dataset), dataset)
    rewrite(path, lambda lines: [lines[0], *(lines[1 + row] for row in order)])
    codes = read_codes(path, dataset)
    assert structure(codes) == structure(expected)
    assert [bool(row.any()) for row in codes.search] == [False, True, False, True]
    assert (codes.search_num, codes.rec_num) == (expected.search_num, expected.rec_num)


# --- a file that is damaged -----------------------------------------------------------------------------------------


def test_changed_bytes_are_refused(toy: Toy, path: Path) -> None:
    dataset = toy()
    written(path, dataset)
    path.write_text(path.read_text().replace("1-5", "1-6", 1))
    assert refusal(path, dataset) == (
        ": the file is not the one that its manifest describes (build it anew with 'recbole-ser codes')"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "file not found"), ('{"training_hash": ', "damaged: Invalid JSON"),
        ("7", "damaged: Input should be"), ("[" * 100_000, "damaged: Invalid JSON"),
        (json.dumps(ORIGIN), "damaged: training_hash: Field required"),
        (json.dumps({**ORIGIN, "training_hash": "", "codes_hash": 7}), "damaged: codes_hash: Input should be"),
        (json.dumps({**ORIGIN, "training_hash": "", "codes_hash": "", "vectors": 1}), "damaged: vectors: "),
    ],
)  # fmt: skip
def test_a_missing_or_broken_manifest_is_refused(toy: Toy, path: Path, text: str | None, problem: str) -> None:
    dataset = toy()
    written(path, dataset)
    if text is None:
        manifest_path(path).unlink()
    else:
        manifest_path(path).write_text(text)
    message = refusal(path, dataset)
    assert message.startswith(f".json: {problem}") and message.endswith("(build it anew with 'recbole-ser codes')")


def test_a_missing_file_is_refused(toy: Toy, path: Path) -> None:
    dataset = toy()
    written(path, dataset).unlink()
    assert "file not found" in refusal(path, dataset)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[:2], ": 2 users are missing, the first is 'b'"),
        (lambda lines: [*lines, lines[2]], ":5: user 'b' is listed twice"),
        (lambda lines: [*lines, "d\t1-0\t1-0"], ":5: user 'd' is not in the data set"),
        (lambda lines: [*lines, "[PAD]\t1-0\t1-0"], ":5: user '[PAD]' is not in the data set"),
        (lambda lines: lines[:1], ": 3 users are missing, the first is 'a'"),
        (lambda lines: [*lines, "\t1-0\t1-0"], ":5: column 'user_id': the entry is empty"),
        (lambda lines: [*lines[:3], "c\t1-0"], ":4: '2 columns, not 3': not as many columns"),
        (lambda lines: [line.rsplit("\t", 1)[0] for line in lines], ":1: column 'rec_codes': "),
        (lambda lines: [HEADER.replace("search_codes", "codes"), *lines[1:]], ":1: column 'search_codes': "),
        (
            lambda lines: [HEADER.replace("search_codes:token_seq", "search_codes:float_seq"), *lines[1:]],
            ":1: column 'search_codes': the type is float_seq, not token_seq (build it anew",
        ),
        (
            lambda lines: [HEADER.replace("user_id:token", "user_id:float"), *lines[1:]],
            ":1: column 'user_id': the type",
        ),
        (lambda lines: [HEADER, *lines[1:3], "c\u200b\t1-0\t1-0"], ":4: user 'c ' is not in the data set"),
    ],
    ids=[
        "missing",
        "doubled",
        "unknown",
        "padding",
        "none",
        "nameless",
        "cut",
        "no rec codes",
        "no search codes",
        "type of codes",
        "type of users",
        "not printable",
    ],
)
def test_rows_and_columns_that_do_not_fit_are_refused(
    toy: Toy, path: Path, change: Callable[[list[str]], list[str]], problem: str
) -> None:
    dataset = toy()
    written(path, dataset)
    rewrite(path, change)
    assert refusal(path, dataset).startswith(problem)


# --- a file of other data -------------------------------------------------------------------------------------------

OTHER = ": the codes were made from other data or under another protocol (build it anew with 'recbole-ser codes')"
PLAIN = {"inter": INTER, "require_both_histories": False}


@pytest.mark.parametrize(
    "values",
    [
        {"inter": ["a i2 10", *INTER[1:]]}, {"search": ["a q1 20 i2"]}, {"search": ["a q1 20 i3"]},
        {"require_both_histories": True}, {"user_inter_num_interval": "[4,inf)"},
        {"val_interval": {"timestamp": "[0,46]"}}, {"val_interval": {"timestamp": "[10,50]"}},
    ],
    ids=["training item", "search", "click", "protocol", "fewer users", "earlier end", "a search less"],
)  # fmt: skip
def test_codes_of_other_training_data_or_another_protocol_are_refused(
    toy: Toy, path: Path, values: dict[str, Any]
) -> None:
    searches = {"search": ["a q2 5 i3", "a q1 20 i2", "b q1 30 i1"]}
    written(path, toy(**PLAIN, **searches))
    assert refusal(path, toy(**{**PLAIN, **searches, **values})) == OTHER


def test_filters_that_keep_as_many_but_other_events_are_told_apart(toy: Toy, path: Path) -> None:
    inter = [f"{user} i{number} {10 * number}" for user in "abc" for number in range(1, 6)]
    same = {"inter": inter, "search": ["a q1 25 i2"], "require_both_histories": False}
    dataset = toy(**same, val_interval={"timestamp": "[0,40]"})
    other = toy(**same, val_interval={"timestamp": "[20,50]"})
    assert len(dataset.log.items) == len(other.log.items) == 12
    written(path, dataset)
    assert refusal(path, other) == OTHER


@pytest.mark.parametrize("place", [-3, -2], ids=["validation", "test"])
def test_codes_do_not_depend_on_held_out_events(toy: Toy, path: Path, place: int) -> None:
    first = toy(**PLAIN)
    written(path, first)
    inter = [*INTER]
    inter[place] = inter[place].replace("i3", "i5").replace("i4", "i5")
    other = toy(inter=inter, require_both_histories=False)
    for name in ("train", "training_interactions", "training_searches"):
        assert torch.equal(getattr(first.split, name), getattr(other.split, name))
    training = first.split.training_interactions.long()
    assert torch.equal(first.log.items[training], other.log.items[training])
    assert first.data_hash != other.data_hash and training_hash(first) == training_hash(other)
    assert read_codes(path, other).rec_num > 1


def test_settings_that_leave_the_training_period_alone_are_accepted(toy: Toy, path: Path) -> None:
    written(path, toy(**PLAIN))
    others = {"MAX_ITEM_LIST_LENGTH": 2, "max_search_length": 1, "seed": 5, "train_batch_size": 3}
    assert read_codes(path, toy(**PLAIN, **others)).rec_num == 5


def test_the_same_data_read_again_has_the_same_hash(toy: Toy) -> None:
    assert training_hash(toy(**PLAIN)) == training_hash(toy(**PLAIN))
