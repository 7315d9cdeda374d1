"""Configuration: layers, strict keys, and nothing evaluated or read from the process's arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from recbole.config import Config

from recbole_ser.bundled import package_folder
from recbole_ser.commands.arguments import parse_arguments
from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError
from recbole_ser.registry import MODELS, available_models, find_model
from recbole_ser.yaml_values import parse_value, read_yaml


def test_later_layers_win_and_mappings_are_merged(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("learning_rate: 1e-4\nepochs: 7\neval_args: {mode: pop9}\n")
    config = SERConfig("SASRec", "toy", [str(file)], {"epochs": 3})
    assert config["learning_rate"] == 1e-4 and config["epochs"] == 3
    assert config["train_batch_size"] == 256 and config["n_layers"] == 2, (
        "ours over RecBole's, RecBole's where we are silent"
    )
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert config.candidate_mode("test") == ("popularity", 9)
    assert (
        config.origin["learning_rate"] == str(file) and config.origin["train_batch_size"] == "properties/overall.yaml"
    )


def test_dataset_values_override_model_values() -> None:
    config = SERConfig("SESRec", "kindle")
    assert config["MAX_ITEM_LIST_LENGTH"] == 15 and config["alpha"] == 0.1
    assert config.origin["hidden_size"] == "properties/dataset/kindle.yaml"


def test_a_data_set_can_say_what_holds_for_one_model_only() -> None:
    sesrec, sasrec = SERConfig("SESRec", "cell"), SERConfig("SASRec", "cell")
    assert (sesrec["learning_rate"], sesrec["weight_decay"]) == (0.003, 0.0001)
    assert (sasrec["learning_rate"], sasrec["weight_decay"]) == (0.001, 0.0)
    assert "models" not in sasrec and sasrec["hidden_size"] == sesrec["hidden_size"] == 32


def test_a_dot_leads_into_a_mapping_and_leaves_the_rest_of_it(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text("codes: {rqvae: {levels: 3, width: 1}}\ncodes.rqvae.levels: 5\n")
    config = SERConfig("GSERec", "toy", file, {"codes.rqvae.width": 2, "eval_args.mode": "pop9"})
    assert config["codes"]["rqvae"] == {"levels": 5, "width": 2} and config["codes"]["summaries"] == "template"
    assert config.candidate_mode("test") == ("popularity", 9)
    assert config["train_neg_sample_args"]["distribution"] == "popularity", "negatives follow the candidates"
    again = SERConfig(**config.arguments())
    assert again["codes"] == config["codes"] and again["eval_args"] == config["eval_args"]
    with pytest.raises(ConfigError, match=r"argument: GSERec has no key 'code': did you mean 'codes'"):
        SERConfig("GSERec", "toy", None, {"code.rqvae.levels": 2})


def test_recboles_own_example_is_found() -> None:
    config = SERConfig("SASRec", "ml-100k", None, {"require_both_histories": False})
    assert (Path(config["data_path"]) / "ml-100k.inter").is_file()
    again = SERConfig(**config.arguments())
    assert Path(again["data_path"]).samefile(config["data_path"])


def test_files_are_a_path_or_several(tmp_path: Path) -> None:
    one, two = tmp_path / "with space.yaml", tmp_path / "two.yaml"
    one.write_text("epochs: 3\n")
    two.write_text("epochs: 4\n")
    for files, epochs in [(one, 3), (str(one), 3), ([one, str(two)], 4), ((two, one), 3), (None, 100), ([], 100)]:
        assert SERConfig("SASRec", "toy", files)["epochs"] == epochs


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"learning_rat": 1}, "SASRec has no key 'learning_rat': did you mean 'learning_rate'"),
        ({"alpha": 0.1}, "SASRec has no key 'alpha'"),
        ({"eval_args": {"mod": "full"}}, "eval_args has no key 'mod': did you mean 'mode'"),
        ({"eval_args": {"mode": "some"}}, "some"),
        ({"metrics": ["Speed"]}, "Speed"),
        ({"topk": [0]}, r"argument: topk is \[0\]: it must be a whole number from 1"),
    ],
)
def test_a_wrong_key_or_value_is_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        SERConfig("SASRec", "toy", None, values)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'SESRec'"):
        SERConfig("SESRek", "toy")
    with pytest.raises(ConfigError, match="cannot be imported"):
        find_model("no.such.module:Model")
    assert find_model("recbole.model.sequential_recommender:NARM").__name__ == "NARM"


def test_every_registered_model_loads_and_has_the_registered_name() -> None:
    for name, spec in MODELS.items():
        assert spec.load().__name__ == name
    assert set(MODELS) <= set(available_models())


def test_process_arguments_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--learning_rate=9", "--node-manager-port=1"])
    config = SERConfig("SASRec", "toy")
    assert config["learning_rate"] == 0.001 and "node-manager-port" not in config
    assert sys.argv == ["pytest", "--learning_rate=9", "--node-manager-port=1"]


def test_strings_are_never_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    attack = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    config = SERConfig("SASRec", "toy", None, {"wandb_project": attack})
    assert config["wandb_project"] == attack and not marker.exists()
    file = tmp_path / "bad.yaml"
    file.write_text(f"wandb_project: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        SERConfig("SASRec", "toy", [str(file)])
    assert not marker.exists()


def test_a_full_softmax_has_no_negatives_and_a_pairwise_loss_has_one() -> None:
    assert SERConfig("SASRec", "toy")["train_neg_sample_args"]["distribution"] == "none"
    negatives = SERConfig("SASRec", "toy", None, {"loss_type": "BPR", "eval_args": {"mode": "pop99"}})[
        "train_neg_sample_args"
    ]
    assert (negatives["distribution"], negatives["sample_num"]) == ("popularity", 1)
    negatives = SERConfig("SESRec", "toy", None, {"train_neg_sample_args": {"distribution": "popularity"}})[
        "train_neg_sample_args"
    ]
    assert (negatives["distribution"], negatives["sample_num"]) == ("popularity", 4)


def test_arguments_give_the_same_configuration_again() -> None:
    config = SERConfig("SESRec", "toy", None, {"alpha": 0.2, "eval_args": {"mode": "uni9"}, "data_path": "somewhere"})
    again = SERConfig(**config.arguments())
    assert again["data_path"] == str(Path("somewhere/toy").absolute())
    again["data_path"] = config["data_path"]
    assert again.resolved() == config.resolved()
    assert yaml.safe_load(yaml.safe_dump(config.resolved())) == config.resolved()


def test_visible_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    SERConfig("SASRec", "toy")
    import os

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("2E5", 2e5), ("1", 1), ("true", True), ("~", None), ("[1, 5]", [1, 5]),
     ("{mode: full}", {"mode": "full"}), ("a=b", "a=b"), ("[", "["), ("1e", "1e")],
)  # fmt: skip
def test_values_are_read_as_yaml(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_command_line_arguments() -> None:
    assert parse_arguments(["--a=1", "--b", "x", "--c=k=v"]) == {"a": 1, "b": "x", "c": "k=v"}
    wrong = {"a=1": "cannot read", "--a": "no value", "--a --b=1": "no value", "--a=1 --a=2": "twice"}
    for arguments, complaint in wrong.items():
        with pytest.raises(ConfigError, match=complaint):
            parse_arguments(arguments.split())


def test_a_wrong_yaml_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: 1\nb: [1,\nc: 2\n")
    with pytest.raises(ConfigError, match=r"x\.yaml:4: not valid YAML"):
        read_yaml(file)
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match="no 'key: value' pairs"):
        read_yaml(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


def test_every_shipped_yaml_file_loads_and_names_a_registered_model() -> None:
    folder = package_folder("properties")
    for path in folder.rglob("*.yaml"):
        read_yaml(path)
    for path in (folder / "model").glob("*.yaml"):
        assert path.stem in MODELS


def test_this_is_still_recboles_config() -> None:
    """The few overridden methods exist in RecBole; a renamed one would silently never be called."""
    ours = [name for name, member in vars(SERConfig).items() if callable(member) and name.startswith("_")]
    new = {"__init__", "_negatives", "_overlay", "_overlay_dataset", "_check", "_refuse_unknown", "_where"}
    assert {name for name in ours if not hasattr(Config, name)} <= new


@pytest.mark.parametrize(("name", "found"), [("sesrec", "SESRec"), ("FMLP-Rec", "FMLPRec"), ("SASREC", "SASRec")])
def test_names_of_models_are_found_whatever_their_capitals_and_hyphens(name: str, found: str) -> None:
    assert SERConfig(name, "ser-sample")["model"] == SERConfig(found, "ser-sample")["model"] == found
