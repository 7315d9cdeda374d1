"""What a sweep may try: how it is written, which keys a model has for it, and how values are drawn."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from scipy import stats

from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError
from recbole_ser.tuning.space import Dimension, check_space, grid, is_given, read_space, settings

WHERE = "mine.yaml: joint"


@pytest.fixture(scope="module")
def sesrec() -> SERConfig:
    return SERConfig("SESRec", "ser-sample")


@pytest.fixture(scope="module")
def gserec() -> SERConfig:
    return SERConfig("GSERec", "ser-sample")


def accept(text: dict[str, Any], config: SERConfig) -> None:
    check_space(read_space(text, WHERE), config, WHERE)


def complaint(text: Any, config: SERConfig | None = None) -> str:
    """What is said of a space that is refused: when it is read, or when it is checked against ``config``."""
    with pytest.raises(ConfigError) as error:
        space = read_space(text, WHERE)
        if config is not None:
            check_space(space, config, WHERE)
    assert str(error.value).startswith(f"{WHERE}: ") and "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{WHERE}: ")


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_space_is_read_in_its_order() -> None:
    text = {
        "weight_decay": {"loguniform": [1e-6, 1]},
        "alpha": {"choice": ["a", 2, 0.5, None, True, [200, 80], {"x": 1}]},
        "dropout_prob": {"uniform": [-1, 0.5]},
        "n_layers": {"integer": [-1, 2]},
        "codes.rqvae.levels": {"choice": [3]},
    }
    assert read_space(text, WHERE) == (
        Dimension("weight_decay", "loguniform", (1e-6, 1)),
        Dimension("alpha", "choice", ("a", 2, 0.5, None, True, [200, 80], {"x": 1})),
        Dimension("dropout_prob", "uniform", (-1, 0.5)),
        Dimension("n_layers", "integer", (-1, 2)),
        Dimension("codes.rqvae.levels", "choice", (3,)),
    )


@pytest.mark.parametrize("text", [None, {}, [], "alpha", 3, [{"alpha": {"choice": [1]}}]])
def test_what_is_no_space_is_refused(text: Any) -> None:
    assert complaint(text) == f"a space is written as {{key: {{kind: values}}}}, not {text}"


@pytest.mark.parametrize(
    "value",
    [
        0.1, None, "choice", [0.1, 1], {}, {"normal": [0, 1]}, {"Choice": [1]}, {"choice": []}, {"choice": 1},
        {"choice": None}, {"choice": "abc"}, {"choice": {"a": 1}}, {"uniform": "0..1"}, {"uniform": {0: 1}},
        {"choice": [1], "uniform": [0, 1]}, {None: [1]},
    ],
)  # fmt: skip
def test_what_is_no_dimension_is_refused_with_what_to_write(value: Any) -> None:
    said = complaint({"beta": {"choice": [1]}, "alpha": value})
    assert said == (
        "alpha: write {choice: [...]}, {uniform: [low, high]}, {loguniform: [low, high]} or {integer: [low, high]}, "
        f"not {value}"
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"choice": [1, 2, 1]}, "a value is listed twice in [1, 2, 1]"),
        ({"choice": [[1], [2], [1]]}, "a value is listed twice in [[1], [2], [1]]"),
        ({"choice": [1, 1.0]}, "a value is listed twice in [1, 1.0]"),
        ({"uniform": [1]}, "uniform takes two numbers, not [1]"),
        ({"uniform": [1, 2, 3]}, "uniform takes two numbers, not [1, 2, 3]"),
        ({"loguniform": ["1e-3", 1]}, "loguniform takes two numbers, not ['1e-3', 1]"),
        ({"uniform": [None, 1]}, "uniform takes two numbers, not [None, 1]"),
        ({"uniform": [False, 2]}, "uniform takes two numbers, not [False, 2]"),
        ({"integer": [1, 2.5]}, "integer takes two whole numbers, not [1, 2.5]"),
        ({"integer": [1.0, 2]}, "integer takes two whole numbers, not [1.0, 2]"),
        ({"integer": [False, 3]}, "integer takes two whole numbers, not [False, 3]"),
        ({"uniform": [2, 1]}, "uniform goes from a lower to a higher number, not [2, 1]"),
        ({"uniform": [0.5, 0.5]}, "uniform goes from a lower to a higher number, not [0.5, 0.5]"),
        ({"uniform": [float("nan"), 1]}, "nan is no value that a sweep can try"),
        ({"loguniform": [1, float("inf")]}, "inf is no value that a sweep can try"),
        ({"choice": [1, float("-inf")]}, "-inf is no value that a sweep can try"),
        ({"integer": [3, 3]}, "integer goes from a lower to a higher number, not [3, 3]"),
        ({"loguniform": [0, 1]}, "loguniform goes from a lower to a higher number and begins above 0, not [0, 1]"),
        ({"loguniform": [-1, 1]}, "loguniform goes from a lower to a higher number and begins above 0, not [-1, 1]"),
        ({"loguniform": [1, 0.1]}, "loguniform goes from a lower to a higher number and begins above 0, not [1, 0.1]"),
    ],
)
def test_wrong_values_are_refused(value: Any, said: str) -> None:
    assert complaint({"beta": {"choice": [1]}, "alpha": value}) == f"alpha: {said}"


# --- which keys -------------------------------------------------------------------------------------------------------


def test_keys_of_the_model_and_of_training_may_be_swept(sesrec: SERConfig, gserec: SERConfig) -> None:
    training: dict[str, Any] = {
        "learning_rate": {"loguniform": [1e-4, 1e-2]},
        "weight_decay": {"uniform": [0, 1]},
        "train_batch_size": {"integer": [32, 256]},
        "train_neg_sample_args.sample_num": {"choice": [1, 4]},
        "train_neg_sample_args.distribution": {"choice": ["uniform", "popularity"]},
        "clip_grad_norm": {"choice": [None, {"max_norm": 5}]},
        "learner": {"choice": ["adam", "adagrad"]},
        "embedding_size": {"choice": [16, 32]},
        "MAX_ITEM_LIST_LENGTH": {"choice": [3, 5]},
        "max_search_length": {"choice": [3, 5]},
        "seed": {"integer": [1, 9]},
    }
    for config in (sesrec, gserec):
        accept(training, config)
    accept(
        {"alpha": {"uniform": [0, 1]}, "n_layers": {"integer": [1, 3]}, "multi_interest": {"choice": [True]}}, sesrec
    )
    accept({"codes.rqvae.lambda_rq_cl": {"choice": [0, 1]}, "graph_layers": {"choice": [0, 2]}}, gserec)


@pytest.mark.parametrize(
    "key",
    [
        "eval_args", "eval_args.mode", "candidate_seed", "require_both_histories", "max_clicks_per_search",
        "max_terms_per_query", "session_gap", "data_path", "load_col", "load_col.inter", "metrics", "topk",
        "valid_metric", "average_over", "eval_batch_size", "codes_file", "run_dir", "epochs", "stopping_step",
    ],
)  # fmt: skip
def test_what_must_be_the_same_for_all_trials_is_refused(key: str, sesrec: SERConfig, gserec: SERConfig) -> None:
    for config in (sesrec, gserec):
        said = complaint(
            {"alpha" if config is sesrec else "n_layers": {"choice": [1]}, key: {"choice": [1, 2]}}, config
        )
        assert said == (
            f"{key} cannot be swept: it is no setting of {config['model']} or of training, and trials must have the "
            "same data and candidates"
        )


@pytest.mark.parametrize(
    ("model", "key", "near"),
    [
        ("SESRec", "alhpa", "alpha"),
        ("SESRec", "learning_rat", "learning_rate"),
        ("SESRec", "train_neg_sample_arg.sample_num", "train_neg_sample_args"),
        ("GSERec", "user_contrast_wieght", "user_contrast_weight"),
        ("GSERec", "code.rqvae.levels", "codes"),
        ("SASRec", "los_type", "loss_type"),
    ],
)
def test_the_nearest_key_is_named(model: str, key: str, near: str) -> None:
    said = complaint({key: {"choice": [1, 2]}}, SERConfig(model, "ser-sample"))
    assert said == f"{model} has no key '{key}' to sweep: did you mean '{near}'?"


@pytest.mark.parametrize("key", ["user_contrast_weight", "zzz", "eval_arg"])
def test_without_a_near_key_the_models_are_listed(key: str, sesrec: SERConfig) -> None:
    """Also where the near ones are keys of other models, or none that may be swept."""
    said = complaint({key: {"choice": [1]}}, sesrec)
    assert said == f"SESRec has no key '{key}' to sweep: it has {', '.join(sorted(sesrec.model_keys))}"
    assert "alpha, beta, " in said


def test_a_model_without_keys_says_so() -> None:
    assert complaint({"zzz": {"choice": [1]}}, SERConfig("Pop", "ser-sample")).endswith("to sweep: it has none")


# --- codes ------------------------------------------------------------------------------------------------------------


def test_codes_are_swept_only_where_the_model_reads_them(sesrec: SERConfig, gserec: SERConfig) -> None:
    text = {"codes.rqvae.levels": {"choice": [2, 3]}}
    accept(text, gserec)
    assert complaint(text, sesrec).startswith("codes.rqvae.levels cannot be swept: it is no setting of SESRec")


@pytest.mark.parametrize("values", [{"loguniform": [1e-4, 1]}, {"uniform": [0, 1]}, {"integer": [1, 3]}])
def test_values_of_codes_are_listed(values: dict[str, Any], gserec: SERConfig) -> None:
    for key in ("codes.rqvae.levels", "codes.rqvae.lambda_rq_cl", "codes.max_records"):
        said = complaint({key: values}, gserec)
        assert said.startswith(f"{key}: codes are made once for each value") and "{choice: [...]}" in said


def test_codes_as_a_whole_are_not_swept(gserec: SERConfig) -> None:
    said = complaint({"codes": {"choice": [{"rqvae": {"levels": 3}}, {"rqvae": {"levels": 1}}]}}, gserec)
    assert said.startswith("codes: codes are made once for each value of a part of this mapping, so name the part")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lr_plateau.factor", "lr_plateau is no mapping (None): sweep it as a whole"),
        ("alpha.x", "alpha is no mapping (0.1): sweep it as a whole"),
        ("alpha.", "alpha is no mapping (0.1): sweep it as a whole"),
        (
            "train_neg_sample_args.sample_num.x",
            "train_neg_sample_args.sample_num is no mapping (4): sweep it as a whole",
        ),
        ("codes.summaries.backend", "codes.summaries is no mapping (template): sweep it as a whole"),
    ],
)
def test_a_dot_leads_into_mappings_only(key: str, said: str, gserec: SERConfig) -> None:
    config = gserec if key.startswith("codes") else SERConfig("SESRec", "ser-sample")
    assert complaint({key: {"choice": [1]}}, config) == f"{key}: {said}"


def test_a_mapping_and_its_part_are_not_both_swept(sesrec: SERConfig) -> None:
    text = {
        "train_neg_sample_args": {"choice": [{"sample_num": 4}]},
        "train_neg_sample_args.sample_num": {"choice": [1, 2]},
    }
    for space in (text, dict(reversed(text.items()))):
        assert "a part of it, are both swept" in complaint(space, sesrec)


@pytest.mark.parametrize(
    ("path", "given"),
    [("alpha", True), ("beta", False), ("codes", True), ("codes.rqvae.levels", True), ("codes.rqvae.width", False),
     ("codes.vectors.path", False), ("alpha.x", False)],
)  # fmt: skip
def test_what_the_user_has_given(path: str, given: bool) -> None:
    assert is_given(path, {"alpha": None, "codes": {"rqvae": {"levels": 3}, "vectors": "openai"}}) is given


def test_nought_may_be_a_number_of_any_kind() -> None:
    config = SERConfig("SESRec", "ser-sample", None, {"dropout_prob": 0})
    accept({"dropout_prob": {"uniform": [0.0, 0.5]}}, config)
    accept({"dropout_prob": {"choice": [0, 0.5]}}, config)


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("alpha", {"choice": [0.1, "much"]}, "alpha is 'much': it must be a number from 0 to 1000000"),
        ("alpha", {"choice": [0.1, None]}, "alpha is ~: it must be a number"),
        ("alpha", {"choice": [0.1, True]}, "alpha is true: it must be a number"),
        ("alpha", {"uniform": [-1, 1]}, "alpha is -1.0: it must be a number from 0"),
        ("dropout_prob", {"uniform": [0, 1]}, "dropout_prob is 1.0: it must be a number from 0 to below 1"),
        ("n_layers", {"choice": ["one"]}, "n_layers is 'one': it must be a whole number from 1 to 64"),
        ("n_layers", {"choice": [1.5, 2]}, "n_layers is 1.5: it must be a whole number"),
        ("n_layers", {"uniform": [1, 2]}, "n_layers is 1.0: it must be a whole number"),
        ("n_layers", {"loguniform": [1, 2]}, "n_layers is 1.0: it must be a whole number"),
        ("n_layers", {"integer": [0, 2]}, "n_layers is 0: it must be a whole number from 1"),
        ("split_threshold", {"uniform": [0, 1]}, "split_threshold is 0.0: it must be mean or median or a number above"),
        ("multi_interest", {"choice": [True, "no"]}, "multi_interest is 'no': it must be true or false"),
        ("multi_interest", {"choice": [0, 1]}, "multi_interest is 0: it must be true or false"),
        ("multi_interest", {"integer": [0, 1]}, "multi_interest is 0: it must be true or false"),
        ("mlp_hidden_size", {"integer": [8, 16]}, "mlp_hidden_size is 8: it must be a list of 1 to 16, each a whole"),
        ("learning_rate", {"uniform": [0, 0.1]}, "learning_rate is 0.0: it must be a number above 0"),
        ("train_neg_sample_args.sample_num", {"choice": [1, "x"]},
         "train_neg_sample_args.sample_num is 'x': it must be a whole number"),
        ("train_neg_sample_args.sample_num", {"uniform": [1, 4]},
         "train_neg_sample_args.sample_num is 1.0: it must be a whole number"),
        ("lr_plateau", {"choice": [None, {"factor": 0.1, "patience": 5}]}, "lr_plateau.min_lr is missing"),
    ],
)  # fmt: skip
def test_values_that_a_key_may_not_have_are_refused(key: str, values: Any, said: str, sesrec: SERConfig) -> None:
    assert complaint({"beta": {"choice": [0.1]}, key: values}, sesrec).startswith(said)


def test_values_inside_codes(gserec: SERConfig) -> None:
    said = complaint({"codes.rqvae.levels": {"choice": [2, "x"]}}, gserec)
    assert said.startswith("codes.rqvae.levels is 'x': it must be a whole number")


def test_values_of_any_type_that_a_key_may_have_are_accepted(sesrec: SERConfig) -> None:
    accept(
        {
            "split_threshold": {"choice": ["mean", "median", 0.5]},
            "alpha": {"integer": [1, 3]},
            "beta": {"choice": [0, 1e-3]},
            "mlp_hidden_size": {"choice": [[200, 80], [64]]},
            "multi_interest": {"choice": [False, True]},
            "lr_plateau": {"choice": [None, {"factor": 0.1, "patience": 5, "min_lr": 0}]},
        },
        sesrec,
    )
    accept({"split_threshold": {"uniform": [0.1, 0.9]}, "n_layers": {"integer": [1, 3]}}, sesrec)


# --- drawing ----------------------------------------------------------------------------------------------------------


def draws(kind: str, values: tuple[Any, ...], count: int = 2000) -> list[Any]:
    generator = np.random.default_rng(7)
    return [Dimension("x", kind, values).draw(generator) for _ in range(count)]


def p_value(values: list[float], low: float, high: float) -> float:
    return float(stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue)


def test_uniform_is_uniform() -> None:
    drawn = draws("uniform", (-2, 6))
    assert all(type(value) is float and -2 <= value <= 6 for value in drawn)
    assert p_value(drawn, -2, 6) > 0.05


def test_loguniform_is_uniform_in_the_logarithm() -> None:
    drawn = draws("loguniform", (1e-5, 10))
    assert all(type(value) is float and 1e-5 <= value <= 10 for value in drawn)
    assert p_value(list(np.log10(drawn)), -5, 1) > 0.05
    assert p_value(drawn, 1e-5, 10) < 1e-9


def test_integers_include_both_ends_and_are_equally_often() -> None:
    drawn = draws("integer", (-1, 3))
    assert set(drawn) == {-1, 0, 1, 2, 3} and all(type(value) is int for value in drawn)
    assert stats.chisquare([drawn.count(value) for value in range(-1, 4)]).pvalue > 0.05


def test_choices_are_equally_often_and_as_they_are_listed() -> None:
    values = (None, "mean", 0.5, [200, 80])
    drawn = draws("choice", values)
    assert all(any(value is listed for listed in values) for value in drawn)
    assert stats.chisquare([drawn.count(value) for value in values]).pvalue > 0.05


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("value", [0.1, 0.3, 3.0, 1e-7])
def test_rounding_does_not_lead_out_of_the_range(value: float, end: int) -> None:
    """exp(log(0.1)) is above 0.1, and exp(log(3)) below or above 3."""

    class Extreme:
        def uniform(self, low: float, high: float) -> float:
            return (low, high)[end]

    low, high = (value, 2 * value) if end == 0 else (value / 2, value)
    extreme: Any = Extreme()
    assert low <= Dimension("x", "loguniform", (low, high)).draw(extreme) <= high


# --- grids ------------------------------------------------------------------------------------------------------------


def test_the_last_key_of_a_grid_varies_fastest() -> None:
    space = read_space({"a": {"choice": [2, 1]}, "b": {"integer": [3, 5]}, "c.d": {"choice": ["x"]}}, WHERE)
    assert grid(space, WHERE) == [
        {"a": 2, "b": 3, "c.d": "x"}, {"a": 2, "b": 4, "c.d": "x"}, {"a": 2, "b": 5, "c.d": "x"},
        {"a": 1, "b": 3, "c.d": "x"}, {"a": 1, "b": 4, "c.d": "x"}, {"a": 1, "b": 5, "c.d": "x"},
    ]  # fmt: skip


def test_a_grid_has_every_combination_once() -> None:
    space = read_space({key: {"choice": list(range(size))} for key, size in zip("abc", (4, 1, 6))}, WHERE)
    points = [tuple(point.values()) for point in grid(space, WHERE)]
    assert len(points) == 24 == len(set(points))


@pytest.mark.parametrize("kind", ["uniform", "loguniform"])
def test_a_grid_of_a_range_is_refused(kind: str) -> None:
    space = read_space({"a": {"choice": [1]}, "b": {kind: [1, 2]}}, WHERE)
    with pytest.raises(ConfigError) as error:
        grid(space, WHERE)
    assert str(error.value) == f"{WHERE}: b: a grid needs listed values (choice), or use --search=random"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_dotted_key_leaves_the_rest_of_its_mapping_as_it_is(gserec: SERConfig) -> None:
    before = copy.deepcopy(gserec["codes"])
    assert before["rqvae"] == {"levels": 2}
    values = {
        "codes.rqvae.lambda_rq_cl": 0.1, "codes.max_records": 7, "codes.rqvae.codebook_size": 8, "learning_rate": 0.5,
    }  # fmt: skip
    made = settings(values, gserec)
    rqvae = {"levels": 2, "lambda_rq_cl": 0.1, "codebook_size": 8}
    assert made == {"codes": {**before, "max_records": 7, "rqvae": rqvae}, "learning_rate": 0.5}
    assert gserec["codes"] == before, "the configuration is as it was"
    made["codes"]["rqvae"]["levels"] = 9
    assert gserec["codes"] == before, "and shares nothing with what was made"
    assert settings({"codes.rqvae.levels": 3}, gserec)["codes"]["rqvae"] == {"levels": 3}


def test_settings_make_a_configuration(gserec: SERConfig) -> None:
    values = {"codes.rqvae.lambda_rq_cl": 0.01, "train_neg_sample_args.sample_num": 2, "graph_layers": 1}
    config = SERConfig("GSERec", "ser-sample", None, settings(values, gserec))
    assert config["codes"]["rqvae"] == {"levels": 2, "lambda_rq_cl": 0.01} and config["graph_layers"] == 1
    assert config["train_neg_sample_args"] == {**gserec["train_neg_sample_args"], "sample_num": 2}
    assert gserec["train_neg_sample_args"]["sample_num"] == 4


def test_mappings_that_are_not_there_yet_are_made(gserec: SERConfig) -> None:
    assert settings({"codes.new.deeper.key": 1}, gserec)["codes"]["new"] == {"deeper": {"key": 1}}
    assert settings({}, gserec) == {}
