"""The declaration of settings: types and ranges at the door, messages, precedence, and models of one's own."""

from __future__ import annotations

import datetime
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from recbole.config import Config
from recbole.model.sequential_recommender import NARM

from recbole_ser.bundled import package_folder
from recbole_ser.compat import recbole_properties
from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError
from recbole_ser.model.base import JointRecommender, SearchRecommender
from recbole_ser.model.search_aware.sesrec import SESRec
from recbole_ser.registry import MODELS, find_model
from recbole_ser.settings import Count, ModelSettings, Settings, Width, setting
from recbole_ser.settings.checking import check
from recbole_ser.settings.declaration import plain
from recbole_ser.settings.of_class import settings_of, yaml_files
from recbole_ser.settings.recbole_model import recbole_settings
from recbole_ser.settings.run import FIXED, GROUPS, AllSettings
from recbole_ser.settings.wording import allowed
from recbole_ser.yaml_values import read_yaml


def refusal(model: Any = "SESRec", dataset: str = "toy", files: Any = None, **values: Any) -> str:
    """The one line that refuses ``values``."""
    with pytest.raises(ConfigError) as error:
        SERConfig(model, dataset, files, values)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- every key is declared --------------------------------------------------------------------------------------------


def test_every_key_of_every_yaml_file_of_defaults_is_declared() -> None:
    theirs = recbole_properties()
    general = set(AllSettings.model_fields) | {path for path in FIXED if "." not in path}
    for path in (
        theirs / "overall.yaml",
        theirs / "dataset/sample.yaml",
        package_folder("properties") / "overall.yaml",
    ):
        assert set(read_yaml(path)) <= general, path
    for name in MODELS:
        model = find_model(name)
        declared = set(settings_of(model).model_fields)
        for path in yaml_files(model):
            assert set(read_yaml(path)) <= declared | general, path


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_has_a_meaning_and_a_type_in_words_and_a_value(name: str) -> None:
    config = SERConfig(name, "toy")
    for group in (*GROUPS.values(), config.model_settings):
        for key, field in group.model_fields.items():
            assert field.description and allowed(field) != "any value", key
            assert key in config


def test_no_parameter_of_recboles_is_left_out() -> None:
    known = set(AllSettings.model_fields) | set(FIXED)
    listed = {key for keys in SERConfig("SESRec", "toy").parameters.values() for key in keys}
    assert listed - known == {"config_file"}


def test_recboles_models_are_declared_by_their_own_yaml_files() -> None:
    for path in sorted((recbole_properties() / "model").glob("*.yaml")):
        group = recbole_settings(path)
        values = check(group, {})  # the defaults are allowed
        assert set(group.model_fields) == set(read_yaml(path)), path
        assert values.model_dump() == read_yaml(path), path
    described = recbole_settings(recbole_properties() / "model/SASRec.yaml").model_fields["hidden_dropout_prob"]
    assert described.description == "the probability of an element to be zeroed"
    assert allowed(described) == "a number from 0 to below 1"


# --- one line each ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "key", "value", "said"),
    [
        ("SESRec", "learning_rate", -1, "a number above 0 up to 10 (step size of the optimiser)"),
        ("SESRec", "learning_rate", True, "a number above 0"),
        ("SESRec", "learning_rate", float("nan"), "a number above 0"),
        ("SESRec", "learning_rate", [0.1], "a number above 0"),
        ("SESRec", "dropout_prob", 2, "a number from 0 to below 1 (probability of dropout)"),
        ("SASRec", "hidden_dropout_prob", 1, "a number from 0 to below 1"),
        ("SESRec", "weight_decay", 1e30, "a number from 0 to 1"),
        ("SESRec", "multi_interest", "abc", "true or false"),
        ("SESRec", "multi_interest", "false", "true or false"),
        ("SESRec", "n_layers", -1, "a whole number from 1 to 64"),
        ("SESRec", "mlp_hidden_size", [0], "a list of 1 to 16, each a whole number from 1 to 16384"),
        ("SESRec", "mlp_hidden_size", 64, "a list of 1 to 16"),
        ("SESRec", "margin", -1, "a number from 0"),
        ("SESRec", "temperature", 0.01, "a number above 0.01 up to 1000"),
        ("SESRec", "split_threshold", "max", "mean or median or a number above 0 and below 1"),
        ("SESRec", "topk", [0], "a whole number from 1 to 1000000 or a list"),
        ("SESRec", "train_batch_size", 0, "a whole number from 1"),
        ("SESRec", "session_gap", -1, "a number above 0 or ~"),
        ("SESRec", "num_threads", 100_000, "a whole number from 1 to 1024 or ~"),
        ("SESRec", "stopping_step", -1, "a whole number from 0"),
        ("SESRec", "learner", "adma", "adam, adamw, sgd, adagrad, rmsprop or sparse_adam"),
        ("SESRec", "rm_dup_inter", "banana", "first or last or ~"),
        ("SESRec", "clip_grad_norm", 0.5, "a mapping with max_norm, norm_type, error_if_nonfinite or ~"),
        ("SESRec", "lr_plateau", "yes", "a mapping with factor, patience, min_lr or ~"),
        ("GRU4Rec", "loss_type", "BCE", "BPR or CE"),
        ("SASRec", "hidden_act", "softplus", "gelu, relu, swish, tanh or sigmoid"),
        ("QuerySeqRec", "graph_prob", 1.5, "a number from 0 to 1"),
        ("NARM", "dropout_probs", [0.1], "a list of 2, each a number from 0 to below 1"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(model: str, key: str, value: Any, said: str) -> None:
    path = "recbole.model.sequential_recommender:NARM" if model == "NARM" else model
    line = refusal(path, **{key: value})
    assert line.startswith(f"argument: {key} is ") and f": it must be {said}" in line


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clip_grad_norm": {"max_norm": -1}}, "clip_grad_norm.max_norm is -1: it must be a number above 0"),
        ({"lr_plateau": {"factor": 0.1}}, "lr_plateau.patience is missing: it must be a whole number from 0"),
        ({"lr_plateau": {"factor": 1.0, "patience": 1, "min_lr": 0}}, "lr_plateau.factor is 1.0"),
        ({"lr_plateau": {"factor": 0.1, "patience": 1, "min_lr": 0, "mode": "max"}}, "lr_plateau has no key 'mode'"),
        ({"train_neg_sample_args.sample_num": -1}, "train_neg_sample_args.sample_num is -1: it must be a whole number"),
        ({"train_neg_sample_args": {"sample_nm": 2}}, "train_neg_sample_args has no key 'sample_nm': did you mean"),
        ({"train_neg_sample_args": None}, "train_neg_sample_args is ~: SESRec learns from sampled negatives"),
        ({"train_neg_sample_args.alpha": 0.5}, "it is a power of popularity, and these negatives are drawn uniformly"),
        ({"eval_args.mode": "uni0"}, "eval_args.mode is 'uni0': it must be uni<N>, pop<N> or full"),
        ({"eval_args.mode": "uni 99"}, "eval_args.mode is 'uni 99'"),
        ({"eval_args": {"mode": {"tset": "full"}}}, "eval_args.mode has no key 'tset': did you mean 'test'"),
        ({"eval_args": {"mode": {}}}, "eval_args.mode is {}: give the candidates of valid, of test, or of both"),
        ({"eval_args": "{split: "}, "eval_args is '{split: ': it must be a mapping with split, mode"),
        ({"eval_args.split": {"LS": "valid_only"}}, "eval_args.split.LS is 'valid_only': it must be valid_and_test"),
        ({"eval_args.split.RS": [8, 1, 1]}, "a split is one of LS, RS and TS, not LS and RS: write eval_args.split as"),
        ({"eval_args.split": {"RS": [0.8, 0.2]}}, "eval_args.split.RS is [0.8, 0.2]: it must be a list of 3"),
        ({"eval_args.split": {"RS": [0.8, 0.2, 0]}}, "eval_args.split.RS is [0.8, 0.2, 0]: it must be a list of 3"),
        ({"eval_args.split": {"TS": [0.9, 0.8]}}, "TS: validation begins before test"),
        ({"eval_args.split": {"TS": [0.9, 3]}}, "TS takes two shares between 0 and 1, or two times:"),
        ({"eval_args.split": {"TS": ["2014-01-01", "soon"]}}, "'soon' is no date: write it like 2014-05-01"),
        ({"val_interval": {"timestamp": "[5,inf"}}, "write an interval such as [5,inf) or (0,1];[3,4)"),
        ({"val_interval": {"timestamp": "[5,4]"}}, "an interval begins at its lower end"),
        ({"user_inter_num_interval": "5"}, "user_inter_num_interval is '5': write an interval such as"),
        ({"item_inter_num_interval": [5, 7]}, "item_inter_num_interval is [5, 7]: it must be an interval such as"),
        ({"codes.rqvae.levels": 0}, "codes.rqvae.levels is 0: it must be a whole number from 1 to 16 (L, levels of"),
        ({"codes": {"max_record": 3}}, "codes has no key 'max_record': did you mean 'max_records'"),
        ({"hidden_size": 32, "n_heads": 3}, "n_heads is 3, which must divide hidden_size, 32"),
        ({"epochs": 3, "eval_step": 4}, "eval_step is 4, more than epochs, 3: no epoch is evaluated"),
    ],
    ids=str,
)  # fmt: skip
def test_values_inside_mappings_and_rules_about_several_keys(values: dict[str, Any], said: str) -> None:
    line = refusal("SESRec", **values)
    assert line.startswith("argument: ") and said in line


def test_the_message_names_the_file_that_set_the_value(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("n_heads: 3\neval_args:\n  mode: uni0\n")
    assert refusal("SESRec", "toy", file, **{"eval_args.mode": "full"}).startswith(
        f"{file}, properties/model/SESRec.yaml: n_heads is 3"
    )
    assert refusal("SESRec", "toy", file, n_heads=4).startswith(f"{file}: eval_args.mode is 'uni0'")
    assert "properties/dataset/kindle.yaml" in refusal("SESRec", "kindle", n_heads=5)
    assert refusal("SASRec", "toy", n_heads=3) == (
        "argument, recbole/properties/model/SASRec.yaml: n_heads is 3, which must divide hidden_size, 64"
    )


@pytest.mark.parametrize("path", FIXED)
def test_a_key_of_recboles_that_has_no_effect_here_is_refused_with_what_to_use_instead(path: str) -> None:
    only, reason = FIXED[path]
    other: Any = {bool: not only, int: 3, str: "other", type(None): {"item": ["x"]}, list: ["x"]}[type(only)]
    assert refusal("SESRec", **{path: other}).startswith(f"argument: {path} is ")
    assert refusal("SESRec", **{path: other}).endswith(reason)
    SERConfig("SESRec", "toy", None, {path: only})


def test_a_model_of_recboles_that_needs_other_batches_is_refused() -> None:
    assert "RecBole's transform 'mask_itemseq'" in refusal("recbole.model.sequential_recommender:BERT4Rec")
    assert refusal("recbole.model.sequential_recommender:SHAN", transform=None).startswith(
        "argument: transform is ~: only 'inverse_itemseq' works"
    )


def test_a_key_of_another_model_is_refused_and_the_nearest_named() -> None:
    assert "SASRec has no key 'alpha': see 'recbole-ser run --model=SASRec --help'" in refusal("SASRec", alpha=0.1)
    assert "BPR has no key 'hidden_size'" in refusal("BPR", hidden_size=32)
    assert "SESRec has no key 'dropout': did you mean 'dropout_prob'" in refusal("SESRec", dropout=0.1)


def test_a_misspelt_key_in_any_file_of_defaults_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(package_folder("properties"), tmp_path / "properties")
    monkeypatch.setattr("recbole_ser.config.package_folder", tmp_path.joinpath)
    monkeypatch.setattr("recbole_ser.settings.of_class.package_folder", tmp_path.joinpath)
    for name, key in [("overall", "epoch"), ("model/SESRec", "alpa"), ("dataset/cell", "topkk")]:
        path = tmp_path / f"properties/{name}.yaml"
        text = path.read_text()
        path.write_text(f"{text}\n{key}: 1\n")
        assert f"properties/{name}.yaml: SESRec has no key '{key}': did you mean" in refusal("SESRec", "cell")
        path.write_text(text)
    SERConfig("SESRec", "cell")


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_log_needs_its_package_to_be_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_ser.config.find_spec", lambda name: None)
    problem = f"argument: log_{package} is true, and {package} is missing: pip install {package}"
    assert refusal(**{f"log_{package}": True}) == problem


def test_python_values_are_read_as_yaml_would_give_them() -> None:
    assert plain({"a": (1, np.int64(2)), 3: Path("x"), "d": datetime.date(2014, 5, 1)}) == {
        "a": [1, 2], "3": "x", "d": "2014-05-01",
    }  # fmt: skip
    config = SERConfig("SESRec", "toy", None, {"mlp_hidden_size": (8, np.int64(4)), "learning_rate": np.float32(0.5)})
    assert config["mlp_hidden_size"] == [8, 4] and config["learning_rate"] == 0.5
    split = yaml.safe_load("{TS: [2014-05-01, 2014-06-01T12:00:00]}")
    assert SERConfig("SESRec", "toy", None, {"eval_args.split": split})["eval_args"]["split"]["TS"] == [
        "2014-05-01", "2014-06-01T12:00:00",
    ]  # fmt: skip


# --- precedence -------------------------------------------------------------------------------------------------------


class Mine(SearchRecommender):
    """A model of one's own, with defaults of its own for keys of training."""

    class Settings(ModelSettings):
        width: Width = setting("of everything", default=12)
        weight_decay: float = setting("stronger than usual", default=0.1)
        MAX_ITEM_LIST_LENGTH: int = setting("it sees more", default=40)


def test_a_models_own_defaults_win_over_those_of_every_run_and_lose_to_the_data_sets_and_the_users(
    tmp_path: Path,
) -> None:
    config = SERConfig(Mine, "toy")
    assert (config["width"], config["weight_decay"], config["MAX_ITEM_LIST_LENGTH"]) == (12, 0.1, 40)
    assert config.origin["weight_decay"] == "Mine.Settings"
    assert SERConfig(Mine, "kindle")["MAX_ITEM_LIST_LENGTH"] == 15, "the data set's file"
    assert SERConfig(Mine, "toy", None, {"weight_decay": 0.5})["weight_decay"] == 0.5
    builtin = SERConfig("SESRec", "toy")
    assert builtin["weight_decay"] == 1e-5 and builtin.origin["weight_decay"] == "properties/model/SESRec.yaml"
    assert SERConfig("SESRec", "cell")["weight_decay"] == 1e-4, "the data set's entry for this model"
    file = tmp_path / "mine.yaml"
    file.write_text("weight_decay: 0.25\n")
    assert SERConfig("SESRec", "cell", file)["weight_decay"] == 0.25
    assert SERConfig("SESRec", "cell", file, {"weight_decay": 0.75})["weight_decay"] == 0.75


def test_a_wider_declaration_does_not_lift_the_range_of_a_key_of_training() -> None:
    assert "weight_decay is 2: it must be a number from 0 to 1" in refusal(Mine, weight_decay=2)


def test_what_the_data_sets_file_changes_is_noted() -> None:
    assert SERConfig("SESRec", "toy").notes() == []
    assert SERConfig("SASRec", "kindle").notes() == ["properties/dataset/kindle.yaml sets hidden_size 32 (before: 64)"]
    assert SERConfig("SASRec", "kindle", None, {"hidden_size": 32}).notes() == [], "the user's value counts"
    assert SERConfig("SESRec", "cell").notes() == [
        "properties/dataset/cell.yaml sets learning_rate 0.003 (before: 0.001), weight_decay 0.0001 (before: 1e-05)"
    ]


def test_widths_of_a_data_sets_file_reach_the_models_that_have_them() -> None:
    bpr = SERConfig("BPR", "kindle")
    assert bpr["embedding_size"] == 32 and "hidden_size" not in bpr


# --- declarations -----------------------------------------------------------------------------------------------------


def test_settings_are_inherited_from_base_classes() -> None:
    class Wider(SESRec):
        class Settings(SESRec.Settings):
            extra: Count = setting("one more", default=3)

    config = SERConfig(Wider, "toy")
    assert config["alpha"] == 0.1 and config["extra"] == 3, "values of SESRec.yaml hold for classes derived from it"
    assert "extra is 0: it must be a whole number from 1" in refusal(Wider, extra=0)

    class Quieter(NARM):
        class Settings(ModelSettings):
            quiet: bool = setting("less", default=True)

    config = SERConfig(Quieter, "toy")
    assert config["dropout_probs"] == [0.25, 0.5] and config["quiet"] is True

    class OwnSettings(JointRecommender):
        class Settings(ModelSettings):
            size: Width = setting("of vectors", default=4)

    assert set(settings_of(OwnSettings).model_fields) == {"size", "search_weight", "loss_type"}


def test_declarations_that_cannot_be_used_are_refused() -> None:
    class Old(SearchRecommender):
        default_config = {"size": 3}

    assert refusal(Old).startswith("Old: default_config is not read: declare its keys in a class Settings")

    class Loose(SearchRecommender):
        Settings = dict  # type: ignore[assignment]

    assert refusal(Loose) == "Loose.Settings must derive from recbole_ser.settings.ModelSettings"

    class Needy(SearchRecommender):
        class Settings(ModelSettings):
            size: Width = setting("of vectors")

    assert refusal(Needy) == "Needy: size is missing: it must be a whole number from 1 to 16384"
    assert SERConfig(Needy, "toy", None, {"size": 3})["size"] == 3


def test_settings_hold_their_types_and_are_read_from_a_configuration() -> None:
    settings = SESRec.Settings.of(SERConfig("SESRec", "toy", None, {"alpha": 1}))
    assert settings.alpha == 1.0 and isinstance(settings.alpha, float) and settings.mlp_hidden_size == [200, 80]
    with pytest.raises(ConfigError, match=r"^alpha is -1: it must be a number from 0"):
        SESRec.Settings.of({**SERConfig("SESRec", "toy").final_config_dict, "alpha": -1})

    class Group(Settings):
        size: Width = setting("of vectors")

    with pytest.raises(ConfigError, match=r"^here: has no key 'sise': did you mean 'size'\?$"):
        check(Group, {"size": 3, "sise": 4}, lambda key: "here")


def test_values_in_words_are_those_that_are_accepted() -> None:
    """The words of a range and the range itself come from one declaration: its ends are tried here."""
    for group in (AllSettings, SESRec.Settings, find_model("GSERec").Settings):
        for key, field in group.model_fields.items():
            words = re.fullmatch(r"a (whole )?number from (\S+) to (below )?(\S+)", allowed(field))
            if words is None:
                continue
            kind = int if words[1] else float
            low, high = kind(words[2]), kind(words[4])
            step = 1 if words[1] else 1e-6
            for value, fine in [(low, True), (high, not words[3]), (low - step, False), (high + step, False)]:
                alone = type("Alone", (Settings,), {"__annotations__": {key: field.annotation}, key: field})
                try:
                    check(alone, {key: value})
                    accepted = True
                except ConfigError:
                    accepted = False
                assert accepted == fine, (key, value)


def test_recbole_still_reads_what_we_check() -> None:
    """RecBole's own class has all keys that are declared, or they are ours."""
    theirs = set(Config("BPR", "toy", config_dict={"load_col": None}).final_config_dict)
    ours = set(read_yaml(package_folder("properties") / "overall.yaml"))
    assert set(AllSettings.model_fields) <= theirs | ours
