"""Mutated ``X.codes`` files and their manifests, read by ``read_codes`` and checked by a run."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import torch
from conftest import load_dataset, write_toy

from campaign import Attack
from recbole_ser.codes.stage import describe_codes, ensure_codes
from recbole_ser.data.codes import manifest_path, read_codes, write_codes
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import UserError
from recbole_ser.files import sha256

ORIGIN = {"settings": {"max_records": 20}, "summaries": {"backend": "template"}, "vectors": {"backend": "tfidf_svd"}}
SEARCH, REC = np.array([[0, 0, 1], [-1, -1, -1], [0, 1, 1]]), np.array([[5, 7, 0], [5, 7, 1], [5, 7, 0]])
VALUES = ["null", "7", "NaN", '""', "[]", "{}", '{"backend": 7}', '{"backend": []}', "[" * 100_000, "1" * 5000,
          '"\\ud800"', "true", '"x"', "1e400", "\x00"]  # fmt: skip


def prepare(folder: Path) -> Attack:
    write_toy(folder)
    dataset = load_dataset(folder, "toy", "GSERec", require_both_histories=False)
    path = folder / "codes" / "toy.codes"

    def attack(random: Random) -> str:
        write_codes(path, dataset, SEARCH, REC, ORIGIN)
        expected = read_codes(path, dataset)
        file = random.choice([path, path, manifest_path(path)])
        data = file.read_bytes()
        for _ in range(random.choice([1, 1, 2, 4])):
            data = random.choice([_other_bytes, _other_header if file == path else _other_value])(data, random)
        file.write_bytes(data)
        if file == path and random.random() < 0.8:
            manifest = json.loads(manifest_path(path).read_text())
            manifest_path(path).write_text(json.dumps({**manifest, "codes_hash": sha256(path)}))
        try:
            codes = read_codes(path, dataset)
            describe_codes(codes)
        except UserError as error:
            message = str(error)
            assert message.startswith(str(path)) and message.isprintable() and len(message) < 1000, message
            return f"{file.suffix[1:]} refused"
        _ensure(dataset, path)
        tables = [_tokens(path, dataset, side) for side in ("search_codes", "rec_codes")]
        for table, read, number in zip(tables, (codes.search, codes.rec), (codes.search_num, codes.rec_num)):
            names = sorted({name for row in table for name in row})
            assert number == len(names) + 1 and read.shape[0] == dataset.user_num and not read[0].any()
            named: dict[int, str] = {}
            for row, found in zip(table, read[1:].tolist()):
                assert len(row) == sum(code > 0 for code in found), (row, found)
                for name, code in zip(row, found):
                    assert named.setdefault(code, name) == name
        same = all(
            torch.equal(read, whole) for read, whole in ((codes.search, expected.search), (codes.rec, expected.rec))
        )
        return f"{file.suffix[1:]} {'unharmed' if same else 'read as it stands'}"

    return attack


def _ensure(dataset: SERDataset, path: Path) -> None:
    """What a run does with the file first."""
    dataset.config["codes_file"] = str(path)
    dataset.config.external_config_dict["codes"] = {"max_records": 20}
    dataset.__dict__.pop("user_codes", None)
    try:
        ensure_codes(dataset.config, dataset)
    except UserError as error:
        assert "was made with" in str(error) and str(error).isprintable(), str(error)


def _tokens(path: Path, dataset: SERDataset, name: str) -> list[list[str]]:
    """The codes of each user, read in another way."""
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n")
    header, *rows = [line.split("\t") for line in text.split("\n")]
    places = {label.partition(":")[0]: place for place, label in enumerate(header)}
    users = {row[places["user_id"]]: row[places[name]].split(" ") for row in rows}
    return [
        [code for code in users[token] if code] for token in dataset.id2token("user_id", range(1, dataset.user_num))
    ]


def _other_bytes(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice([0, 0, 1, 1, 5, 5000]))
    odd = [b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b"\t", b" ", b'"', b":", b"-", b"1",
           b"\xed\xa0\x80", "\u0085".encode(), random.randbytes(3), data[start:end] * 2]  # fmt: skip
    return data[:start] + random.choice(odd) + data[end:]


def _other_header(data: bytes, random: Random) -> bytes:
    kinds = [b"token", b"token_seq", b"float", b"float_seq", b"", b"int"]
    return data.replace(b":" + random.choice(kinds[:2]), b":" + random.choice(kinds), random.randint(1, 2))


def _other_value(data: bytes, random: Random) -> bytes:
    lines = data.decode("utf-8", "replace").split("\n")
    place = random.randrange(len(lines))
    head, colon, _ = lines[place].partition(": ")
    lines[place] = random.choice([f"{head}{colon}{random.choice(VALUES)},", "", lines[place] * 2])
    return "\n".join(lines).encode()
