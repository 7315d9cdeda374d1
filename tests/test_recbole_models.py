"""RecBole's own models: which run, how the others are refused, and that those that run do so as in RecBole."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_dataset, write_lines
from recbole.data.interaction import Interaction
from recbole.data.transform import InverseItemSequence
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.model.general_recommender import BPR, EASE, LightGCN, MultiVAE, RecVAE
from scipy import sparse

from recbole_ser import Recommender, resume, run
from recbole_ser.bundled import package_folder
from recbole_ser.compat import set_dok_update
from recbole_ser.config import SERConfig
from recbole_ser.data.loader import EvalLoader, TrainLoader
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.model.building import build_model
from recbole_ser.model.foreign import candidate_scorer, failing_in_a_line, with_history
from recbole_ser.recbole_models import refuse_unfit
from recbole_ser.runs.checkpoint import load_checkpoint, other_parameters, save_checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
recbole_models = importlib.import_module("recbole_models")

QUIET = {"show_progress": False, "state": "ERROR"}
REFUSED = frozenset(["BERT4Rec", "DIEN", "FEARec", "GRU4RecKG", "KSR", "NCL", "RaCT", "RecVAE", "S3Rec"])
# Their predict differs from their full_sort_predict, which counts: noise, norms, a sigmoid, or it only fails.
PREDICT_DIFFERS = frozenset(["ADMMSLIM", "CORE", "FISM", "GRU4RecCPR", "Random", "SASRecCPR"])


def path_of(name: str) -> str:
    return next(recbole_models.model_in(module) for module in recbole_models.modules() if module.endswith(f".{name}"))


def refusal(model: str | type) -> str:
    with pytest.raises(ConfigError) as caught:
        SERConfig(model, "toy")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- which are refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("sequential_recommender.s3rec:S3Rec", "a trainer of its own, RecBole's S3RecTrainer"),
        ("general_recommender.ract:RaCT", "a trainer of its own, RecBole's RaCTTrainer"),
        ("general_recommender.recvae:RecVAE", "a trainer of its own, RecBole's RecVAETrainer"),
        ("general_recommender.ncl:NCL", "a trainer of its own, RecBole's NCLTrainer"),
        ("sequential_recommender.dien:DIEN", "a data set of its own, RecBole's DIENDataset"),
        ("sequential_recommender.ksr:KSR", "a data set of its own, RecBole's KSRDataset"),
        ("sequential_recommender.bert4rec:BERT4Rec", "transform 'mask_itemseq' changes its batches at random"),
        ("sequential_recommender.fearec:FEARec", "it looks up histories of other training rows"),
        ("context_aware_recommender.fm:FM", "it scores features of interactions"),
        ("knowledge_aware_recommender.cke:CKE", "it learns from a knowledge graph"),
        ("abstract_recommender:GeneralRecommender", "it has no calculate_loss"),
    ],
)
def test_what_would_be_trained_differently_is_refused(path: str, reason: str) -> None:
    assert reason in refusal(f"recbole.model.{path}")


def test_a_model_of_the_same_name_is_named_as_long_as_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(RecVAE).endswith("RecVAETrainer")
    monkeypatch.setattr("recbole_ser.recbole_models.available_models", lambda: {"RecVAE": None})
    assert refusal(RecVAE).endswith("this package has a RecVAE of its own: --model=RecVAE")


def test_a_class_of_ones_own_is_refused_like_the_one_whose_loss_it_keeps() -> None:
    class Wider(RecVAE):
        pass

    class Own(RecVAE):
        def calculate_loss(self, interaction: Any, encoder_flag: bool = True) -> Any:
            return super().calculate_loss(interaction, encoder_flag)

    assert "RecVAETrainer" in refusal(Wider)
    refuse_unfit(Own)


def test_missing_columns_and_errors_inside_a_model_are_one_line(toy: Any) -> None:
    values = {"require_both_histories": False, "eval_args": {"mode": "full"}}
    dataset = toy(path_of("sasrecf"), **values)
    with pytest.raises(ConfigError, match=r"^selected_features names 'class', .* there is none$"):
        build_model(dataset.config, dataset)
    dataset = toy(path_of("convncf"), **values, embedding_size=32)
    model = build_model(dataset.config, dataset)
    batch = next(iter(TrainLoader(dataset.config, dataset)))
    line = r"^RecBole's ConvNCF fails with these settings and data: RuntimeError: .*$"
    with pytest.raises(UserError, match=line), failing_in_a_line(type(model)):
        model.calculate_loss(batch)


# --- how the others run -----------------------------------------------------------------------------------------------


def test_autoencoders_learn_from_users_as_in_recbole(toy: Any) -> None:
    dataset = toy("recbole.model.general_recommender.multivae:MultiVAE", require_both_histories=False)
    (batch,) = TrainLoader(dataset.config, dataset)
    assert sorted(batch["user_id"].tolist()) == [1, 2, 3]
    assert set(batch.interaction) == {"user_id", "item_id"}

    class Own(MultiVAE):
        def calculate_loss(self, interaction: Any) -> Any:
            return super().calculate_loss(interaction)

    dataset = toy(Own, require_both_histories=False)
    assert TrainLoader(dataset.config, dataset).trains_on == "interactions"  # RecBole does not know its name either


def test_counters_of_training_are_part_of_checkpoints(toy: Any) -> None:
    dataset = toy(MultiVAE, require_both_histories=False, train_batch_size=1)
    model = build_model(dataset.config, dataset)
    for batch in TrainLoader(dataset.config, dataset):
        model.calculate_loss(batch)
    assert other_parameters(model)["update"] == 3  # it weighs the divergence by this number
    again = build_model(dataset.config, dataset)
    again.load_other_parameter(other_parameters(model))
    assert again.update == 3


def test_histories_are_padded_in_front_as_by_recboles_transform(toy: Any) -> None:
    dataset = toy("recbole.model.sequential_recommender.shan:SHAN", require_both_histories=False)
    model = build_model(dataset.config, dataset)
    lists = torch.tensor([[3, 1, 2, 0], [4, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]])
    batch = Interaction({"item_id_list": lists, "item_length": torch.tensor([3, 1, 4, 0])})
    given = with_history(model, batch)
    expected = InverseItemSequence(dict(dataset.config.final_config_dict))(dataset, batch)
    assert torch.equal(given["Inverse_item_id_list"], expected["Inverse_item_id_list"])
    assert given["Inverse_item_id_list"].tolist()[0] == [0, 3, 1, 2]


def test_matrices_and_arrays_come_back_from_a_checkpoint_as_they_were(tmp_path: Path) -> None:
    matrix = sparse.random(5, 7, 0.4, format="csr", dtype=np.float32, random_state=0)
    kept = {layout: matrix.asformat(layout) for layout in ("csr", "csc", "coo", "lil", "dok")}
    kept |= {"array": sparse.csc_array(matrix), "dense": matrix.toarray(), "matrix": matrix.todense()}
    kept |= {"numbers": np.arange(3), "empty": sparse.csr_matrix((2, 3)), "no": np.zeros((0, 2))}
    save_checkpoint(tmp_path / "file.pt", {"kept": kept})
    loaded = load_checkpoint(tmp_path / "file.pt", "cpu", ("kept",))["kept"]
    for name, value in kept.items():
        assert type(loaded[name]) is type(value) and loaded[name].dtype == value.dtype, name
        dense = [part.toarray() if sparse.issparse(part) else part for part in (loaded[name], value)]
        assert np.array_equal(*dense), name


@pytest.mark.parametrize("change", [{"row": torch.tensor([9])}, {"data": 3}, {"scipy.sparse": "no_matrix"}])
def test_a_matrix_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    one = torch.tensor([1])
    matrix = {"scipy.sparse": "csr_matrix", "shape": [2, 2], "row": one, "col": one, "data": one, **change}
    save_checkpoint(tmp_path / "file.pt", {"kept": matrix})
    with pytest.raises(UserError, match="holds an array or a matrix that is none"):
        load_checkpoint(tmp_path / "file.pt", "cpu", ("kept",))


def test_what_cannot_be_a_tensor_is_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint\.kept is a ndarray, which"):
        save_checkpoint(tmp_path / "file.pt", {"kept": np.array(["text"])})


def test_scipys_missing_method_is_given_back(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = toy(LightGCN, require_both_histories=False)
    expected = build_model(dataset.config, dataset).norm_adj_matrix.to_dense()
    owner = next(base for base in sparse.dok_matrix.__mro__ if "_update" in vars(base))
    monkeypatch.delattr(owner, "_update")
    set_dok_update()
    assert torch.equal(build_model(dataset.config, dataset).norm_adj_matrix.to_dense(), expected)
    assert expected.any()


def test_a_model_without_parameters_is_resumed_and_loaded(sample: Path, tmp_path: Path) -> None:
    values = {**QUIET, "data_path": str(sample), "run_dir": str(tmp_path / "run")}
    result = run(EASE, "few", config_dict=values)
    assert result.epochs == 1 and resume(tmp_path / "run").ranks == result.ranks
    recommender = Recommender.load(tmp_path / "run")
    users = torch.from_numpy(recommender.dataset.token2id("user_id", np.array(recommender.users[:4])))
    with torch.no_grad():
        scores = recommender.model.full_sort_predict(Interaction({"user_id": users})).view(4, -1)
    best = recommender.dataset.id2token("item_id", scores[:, 1 : recommender.dataset.target_num].argmax(1).numpy() + 1)
    assert recommender.recommend(recommender.users[:4], k=1).item_id.tolist() == list(best)


def test_loading_a_model_leaves_the_random_states_alone(sample: Path, tmp_path: Path) -> None:
    values = {**QUIET, "data_path": str(sample), "run_dir": str(tmp_path / "run"), "epochs": 1}
    run(BPR, "few", config_dict=values)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    Recommender.load(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a data set ``few``: the first users of the bundled sample with their logs, and all items."""
    folder, source = tmp_path_factory.mktemp("data"), package_folder("dataset_atomic") / "ser-sample"
    users: list[str] = []
    for suffix in ("inter", "search", "item", "query"):
        header, *rows = (source / f"ser-sample.{suffix}").read_text(encoding="utf-8").splitlines()
        if suffix in ("inter", "search"):
            users = users or list(dict.fromkeys(row.split("\t")[0] for row in rows))[:40]
            rows = [row for row in rows if row.split("\t")[0] in users]
        write_lines(folder / "few" / f"few.{suffix}", header, *rows)
    return folder


def settings_for(name: str, data_path: Path) -> dict[str, Any]:
    columns = {"load_col": {"inter": "*", "search": "*", "query": "*", "item": ["item_id", "category"]}}
    given = {"data_path": str(data_path), "MAX_ITEM_LIST_LENGTH": 5, "train_batch_size": 128, **columns}
    smaller = {"train_batch_size": 32} if name == "DGCF" else {}  # which draws items / batches of the few users
    return {**given, **recbole_models.NEEDED.get(name, {}), **smaller}


@pytest.mark.slow
@pytest.mark.parametrize("module", recbole_models.modules(), ids=lambda module: module.rpartition(".")[2])
def test_every_model_runs_or_is_refused_in_one_line(module: str, sample: Path, tmp_path: Path) -> None:
    path = recbole_models.model_in(module)
    name = path.rpartition(":")[2]
    outcome = recbole_models.tried(path, "few", tmp_path / "runs", {"epochs": 2, **settings_for(name, sample)})
    assert outcome.kind == ("refused" if name in REFUSED else "runs"), outcome.line


@pytest.mark.slow
@pytest.mark.parametrize("module", recbole_models.modules(), ids=lambda module: module.rpartition(".")[2])
@torch.no_grad()
def test_scores_are_those_of_the_model_itself(module: str, sample: Path) -> None:
    path = recbole_models.model_in(module)
    name = path.rpartition(":")[2]
    if name in REFUSED:
        pytest.skip("refused")
    dataset = load_dataset(sample, "few", path, **{**settings_for(name, sample), "eval_batch_size": 16})
    model = build_model(dataset.config, dataset).train()
    model.calculate_loss(with_history(model, next(iter(TrainLoader(dataset.config, dataset)))))  # Pop counts now
    scorer, (batch, items, _) = candidate_scorer(model.eval()), next(iter(EvalLoader(dataset.config, dataset, "test")))
    scores, read = scorer.score(scorer.encode(batch), items), with_history(model, batch)
    if name not in recbole_models.NOISY and type(model).full_sort_predict is not AbstractRecommender.full_sort_predict:
        expected = model.full_sort_predict(read).reshape(len(read), -1).gather(1, items)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    if name not in PREDICT_DIFFERS:
        columns = [model.predict(Interaction({**read.interaction, "item_id": column})) for column in items.t()[:6]]
        expected = torch.stack([column.view(-1) for column in columns], dim=1)
        logits = type(scorer).__name__ == "_Pairs" and scorer.logit_fields
        scores = scores[:, :6].sigmoid() if logits else scores[:, :6]
        torch.testing.assert_close(scores, expected.to(scores.dtype), atol=1e-5, rtol=1e-4)
