"""Plans of sweeps: how they are named and read, what is refused, and the ones that are shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recbole_ser.bundled import package_folder
from recbole_ser.config import SERConfig
from recbole_ser.errors import ConfigError
from recbole_ser.registry import MODELS, find_model
from recbole_ser.tuning.plan import Plan, read_plan
from recbole_ser.tuning.space import Dimension, grid, read_space, settings
from recbole_ser.yaml_values import read_yaml

TUNE = package_folder("properties") / "tune"
SHIPPED = [(path.stem, name) for path in sorted(TUNE.glob("*.yaml")) for name in read_yaml(path)]
FILE = """\
first:
  space: {alpha: {loguniform: [1e-3, 1]}}
  fixed: {beta: 1e-3}
  trials: 7
second:
  space: {alpha: {choice: [0.1, 1]}, n_layers: {integer: [1, 3]}}
  search: grid
  scheduler: none
  grace_period: 4
  reduction_factor: 5
  plot: [NDCG@5]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return path


def sesrec(**values: Any) -> SERConfig:
    return SERConfig("SESRec", "ser-sample", None, values)


def plan_of(space: dict[str, Any] | None = None, **options: Any) -> Plan:
    return Plan("mine", read_space(space or {"alpha": {"choice": [0.1, 1.0]}}, "mine"), **options)


def complaint(space: Any, model: str = "SESRec", **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        read_plan(model, space, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- which sweep ------------------------------------------------------------------------------------------------------


def test_a_sweep_of_the_models_own_file_by_name() -> None:
    plan, where = read_plan("SESRec", "alpha")
    assert where == f"{TUNE / 'SESRec.yaml'}: alpha" and plan.name == "alpha"
    assert [dimension.key for dimension in plan.space] == ["alpha"] and plan.fixed == {"beta": 0.001}
    assert (plan.search, plan.scheduler, plan.trials) == ("grid", "none", len(plan.space[0].values))


def test_the_first_sweep_is_the_default() -> None:
    for model in ("SESRec", "GSERec"):
        plan, where = read_plan(model, None)
        assert plan.name == next(iter(read_yaml(TUNE / f"{model}.yaml"))) == "joint" and where.endswith(": joint")
        assert plan == read_plan(model, "joint")[0] == read_plan(find_model(model), None)[0]


def test_models_without_a_file_share_one() -> None:
    for model in ("SASRec", find_model("UniSAR"), "recbole.model.sequential_recommender:NARM"):
        plan, where = read_plan(model, None)
        assert where == f"{TUNE / 'overall.yaml'}: training" and plan.name == "training"
        assert plan == read_plan(model, "training")[0]


def test_a_file_of_ones_own(file: Path) -> None:
    first = Plan("first", (Dimension("alpha", "loguniform", (0.001, 1)),), fixed={"beta": 0.001}, trials=7)
    space = (Dimension("alpha", "choice", (0.1, 1)), Dimension("n_layers", "integer", (1, 3)))
    second = Plan("second", space, {}, "grid", 6, "none", 4, 5, ("NDCG@5",))
    assert read_plan("SESRec", str(file)) == (first, f"{file}: first")
    assert read_plan("SESRec", f"{file}:first") == (first, f"{file}: first")
    assert read_plan("SESRec", f"{file}:second") == (second, f"{file}: second")


@pytest.mark.parametrize("name", ["a:b.yaml", "other.yml", "v1.yes.yaml"])
def test_names_of_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(FILE)
    assert read_plan("SESRec", name)[0].name == "first"
    assert read_plan("SESRec", f"{name}:second") == (read_plan("SESRec", str(tmp_path / name) + ":second")[0],
                                                     f"{name}: second")  # fmt: skip


def test_a_space_itself() -> None:
    text = {"alpha": {"uniform": [0, 1]}}
    plan, where = read_plan("SESRec", text, trials=3, scheduler="none")
    assert where == "space"
    assert plan == Plan("space", (Dimension("alpha", "uniform", (0, 1)),), trials=3, scheduler="none")
    assert text == {"alpha": {"uniform": [0, 1]}}, "left as it was"
    assert complaint({"alpha": 1}).startswith("space: alpha: write {choice: [...]}")
    assert complaint({}).startswith("space: a space is written as")


def test_what_a_plan_is_without_options() -> None:
    plan = read_plan("SESRec", {"alpha": {"uniform": [0, 1]}})[0]
    assert (plan.search, plan.trials, plan.scheduler, plan.grace_period, plan.reduction_factor, plan.fixed, plan.plot) \
        == ("random", 20, "asha", 5, 3, {}, ())  # fmt: skip


def test_options_win_and_none_is_none_of_them(file: Path) -> None:
    options = {"search": "tpe", "trials": 9, "scheduler": "none", "grace_period": 1, "reduction_factor": 4}
    plan = read_plan("SESRec", str(file), **options)[0]
    assert plan == replace(read_plan("SESRec", str(file))[0], **options)
    assert read_plan("SESRec", str(file), **dict.fromkeys(options)) == read_plan("SESRec", str(file))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("alpa", "did you mean 'alpha'? it has"), ("Lambda", "did you mean 'lambda'? it has"), ("zzz", "it has")],
)
def test_an_unknown_sweep_names_the_nearest_and_all(name: str, hint: str) -> None:
    path = TUNE / "SESRec.yaml"
    known = "joint, alpha, beta, lambda, learning_rate"
    assert complaint(name) == f"{path}: there is no sweep '{name}': {hint} {known}"


def test_an_unknown_sweep_of_a_file(file: Path) -> None:
    said = complaint(f"{file}:secnod")
    assert said == f"{file}: there is no sweep 'secnod': did you mean 'second'? it has first, second"
    assert complaint("alpha", model="SASRec").endswith("overall.yaml: there is no sweep 'alpha': it has training")
    assert "did you mean 'SESRec'" in complaint(None, model="SESrek")


# --- what is no plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "{file}: holds no sweep"),
        ("- 1\n", "{file}: holds no 'key: value' pairs"),
        ("a: [\n", "{file}:2: not valid YAML: "),
        ("a: 1\n", "{file}: a: a sweep is written as {{space: {{key: {{kind: values}}}}, ...}}"),
        ("a: {alpha: {choice: [1]}}\n", "{file}: a: a sweep is written as {{space: {{key: {{kind: values}}}}, ...}}"),
        ("a: {space: {}}\n", "{file}: a: a space is written as {{key: {{kind: values}}}}, not {{}}"),
        ("a: {space: {alpha: {choice: []}}}\n", "{file}: a: alpha: write {{choice: [...]}}, "),
        ("a: {space: {alpha: {choice: [1]}}, trails: 3}\n",
         "{file}: a: a sweep has no key 'trails': known are fixed, grace_period, plot, reduction_factor, scheduler, "
         "search, space, trials"),
        ("a: {space: {alpha: {choice: [1]}}, name: b}\n", "{file}: a: a sweep has no key 'name': known are "),
        ("a: {space: {alpha: {choice: [1]}}, fixed: [beta]}\n",
         "{file}: a: fixed is written as {{key: value}}, not ['beta']"),
        ("a: {space: {alpha: {choice: [1]}}, fixed: ~}\n", "{file}: a: fixed is written as {{key: value}}, not None"),
        ("a: {space: {alpha: {choice: [1]}}, plot: MRR}\n", "{file}: a: plot is a list of metrics, not MRR"),
    ],
)  # fmt: skip
def test_files_that_hold_no_plan_are_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert complaint(str(file)).startswith(said.format(file=file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.yaml", "none.yaml:first", "none.yml"):
        assert complaint(str(tmp_path / name)).startswith(f"{tmp_path / name.partition(':')[0]}: cannot be read: ")


# --- grids ------------------------------------------------------------------------------------------------------------


def test_a_grid_has_as_many_trials_as_points(file: Path) -> None:
    name = f"{file}:second"
    assert read_plan("SESRec", name)[0].trials == read_plan("SESRec", name, trials=6)[0].trials == 6
    said = complaint(name, trials=5)
    assert said == f"{file}: second: its grid has 6 points: leave --trials out, or use --search=random"
    assert read_plan("SESRec", name, search="random", trials=5)[0].trials == 5
    file.write_text(FILE.replace("search: grid", "search: grid\n  trials: 99"))
    assert read_plan("SESRec", name)[0].trials == 6, "what a file says of a grid's trials does not matter"


def test_a_grid_of_a_range_is_refused_at_once(file: Path) -> None:
    said = complaint(f"{file}:first", search="grid")
    assert said == f"{file}: first: alpha: a grid needs listed values (choice), or use --search=random"


# --- as JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_shipped_plans_are_the_same_after_json(model: str, name: str) -> None:
    plan, where = read_plan("SASRec" if model == "overall" else model, name)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False)), where) == plan


def test_any_plan_is_the_same_after_json() -> None:
    space = {
        "alpha": {"loguniform": [1e-30, 1 / 3]},
        "mlp_hidden_size": {"choice": [[200, 80], [], None, True, "ä", 1e-5, {"a": {"b": [1]}}]},
        "codes.rqvae.levels": {"integer": [-1, 2**40]},
        "beta": {"uniform": [0, 0.1]},
    }
    fixed = {"codes.max_records": 3, "lr_plateau": {"factor": 0.1}, "nothing": None}
    plan = plan_of(space, fixed=fixed, search="tpe", trials=3, scheduler="none", grace_period=5, reduction_factor=6,
                   plot=("MRR", "Hit@5"))  # fmt: skip
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())), "sweep.json")
    assert again == plan and [d.key for d in again.space] == list(space)
    assert [type(value) for d in again.space for value in d.values] == [type(v) for d in plan.space for v in d.values]


def test_a_file_of_a_sweep_that_was_edited_badly_is_refused() -> None:
    values = plan_of().to_json()
    with pytest.raises(ConfigError, match=r"^sweep\.json: alpha: write \{choice"):
        Plan.from_json({**values, "space": {"alpha": 1}}, "sweep.json")


# --- checks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search": "bayes"}, "search is any of grid, random, tpe, not 'bayes'"),
        ({"search": None}, "search is any of grid, random, tpe, not 'None'"),
        ({"scheduler": "hyperband"}, "scheduler is any of asha, none, not 'hyperband'"),
        ({"scheduler": None}, "scheduler is any of asha, none, not 'None'"),
        ({"trials": 0}, "trials is a whole number from 1 on, not 0"),
        ({"trials": 2.0}, "trials is a whole number from 1 on, not 2.0"),
        ({"trials": True}, "trials is a whole number from 1 on, not True"),
        ({"trials": "5"}, "trials is a whole number from 1 on, not 5"),
        ({"grace_period": 0}, "grace_period is a whole number from 1 on, not 0"),
        ({"grace_period": 1.5}, "grace_period is a whole number from 1 on, not 1.5"),
        ({"reduction_factor": 1}, "reduction_factor is a whole number from 2 on, not 1"),
        ({"reduction_factor": "3"}, "reduction_factor is a whole number from 2 on, not 3"),
        ({"plot": ("MRR", "NDCG@7")},
         "plot: 'NDCG@7' is not computed: use any of hit@1, hit@10, hit@5, mrr, mrr@1, mrr@10, mrr@5, ndcg@1, "
         "ndcg@10, ndcg@5"),
    ],
)  # fmt: skip
def test_options_out_of_their_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_of(**options).check(sesrec(), "mine.yaml: a")
    assert str(error.value) == f"mine.yaml: a: {said}"


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
@pytest.mark.parametrize("scheduler", ["asha", "none"])
def test_the_least_that_is_accepted(search: str, scheduler: str) -> None:
    plan = plan_of(search=search, scheduler=scheduler, trials=1, grace_period=1, reduction_factor=2)
    plan.check(sesrec(), "mine")
    replace(plan, plot=("ndcg@5", "mRR")).check(sesrec(), "mine")


def test_the_space_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"^mine: SESRec has no key 'alhpa' to sweep: did you mean 'alpha'"):
        plan_of({"alhpa": {"choice": [1]}}).check(sesrec(), "mine")


def test_metrics_of_the_plots_are_those_that_the_configuration_computes() -> None:
    plan_of(plot=("hit@3", "MRR")).check(sesrec(metrics=["Hit"], topk=[3], valid_metric="Hit@3"), "mine")
    with pytest.raises(ConfigError, match=r"'hit@10' is not computed: use any of hit@3, mrr$"):
        plan_of(plot=("hit@10",)).check(sesrec(metrics=["Hit"], topk=[3], valid_metric="Hit@3"), "mine")


def test_what_is_swept_cannot_be_given_as_well(tmp_path: Path) -> None:
    plan = plan_of({"beta": {"choice": [1.0]}, "alpha": {"choice": [0.1]}})
    plan.check(sesrec(n_layers=2), "mine")
    file = tmp_path / "mine.yaml"
    file.write_text("alpha: 0.3\n")
    for config in (sesrec(alpha=0.1), SERConfig("SESRec", "ser-sample", [str(file)])):
        with pytest.raises(ConfigError, match=r"^mine: alpha is swept and given as well: leave one of them out$"):
            plan.check(config, "mine")


def test_a_part_of_a_mapping_can_be_swept_beside_others_that_are_given() -> None:
    config = SERConfig("GSERec", "ser-sample", None, {"codes": {"max_records": 5}})
    plan_of({"codes.rqvae.levels": {"choice": [2, 3]}}).check(config, "mine")


# --- metrics of the plots ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plot", "metric", "plotted"),
    [
        ((), "ndcg@10", ["ndcg@10", "mrr"]),
        ((), "mrr", ["mrr"]),
        (("NDCG@5", "Hit@5"), "ndcg@10", ["ndcg@5", "hit@5"]),
        (("Hit@1",), "ndcg@10", ["hit@1"]),
        (("MRR", "mrr", "Hit@1"), "ndcg@10", ["mrr", "hit@1"]),
        (("Hit@1", "MRR", "NDCG@5"), "ndcg@10", ["hit@1", "mrr"]),
    ],
)
def test_plotted_metrics(plot: tuple[str, ...], metric: str, plotted: list[str]) -> None:
    assert plan_of(plot=plot).plotted(metric) == plotted


# --- what is shipped --------------------------------------------------------------------------------------------------


def test_every_file_is_of_a_model() -> None:
    files = {path.stem for path in TUNE.iterdir()}
    assert files <= {*MODELS, "overall"} and {"SESRec", "GSERec", "overall"} <= files


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_every_shipped_sweep_can_be_run(model: str, name: str) -> None:
    model = "SASRec" if model == "overall" else model
    plan, where = read_plan(model, name)
    config = SERConfig(model, "ser-sample", None, settings(plan.fixed, SERConfig(model, "ser-sample")))
    plan.check(config, where)
    assert not set(plan.fixed) & {dimension.key for dimension in plan.space}
    last = {dimension.key: dimension.values[-1] for dimension in plan.space}
    made = SERConfig(model, "ser-sample", None, {**config.external_config_dict, **settings(last, config)})
    for key, value in {**plan.fixed, **last}.items():
        found: Any = made
        for part in key.split("."):
            found = found[part]
        assert found == value and type(found) is type(value)


def values_of(model: str, name: str, key: str) -> set[Any]:
    (values,) = [d.values for d in read_plan(model, name)[0].space if d.key == key]
    return set(values)


def test_the_sweeps_of_sesrecs_paper() -> None:
    """Figure 5: alpha is best at 0.1 and beta at 0.001, each with the other one at its best value."""
    for key, other, values in [("alpha", {"beta": 0.001}, {0.1}), ("beta", {"alpha": 0.1}, {0.001})]:
        plan = read_plan("SESRec", key)[0]
        assert [dimension.key for dimension in plan.space] == [key] and plan.fixed == other
        assert (plan.search, plan.scheduler) == ("grid", "none"), "every value is trained to its end"
        points = [point[key] for point in grid(plan.space, key)]
        assert values <= set(points) and points == sorted(points)
        assert min(points) < min(values) and max(values) < max(points), "to both sides of the peak"


def test_the_sweeps_of_gserecs_paper() -> None:
    """Section 5.1.4 has the values, and Section 5.4.3 what is fixed meanwhile."""
    weights = {0.0001, 0.001, 0.01, 0.1, 1.0}
    optimum = {"user_contrast_weight": 0.1, "history_contrast_weight": 0.01}
    keys = {
        "lambda_rq_cl": "codes.rqvae.lambda_rq_cl",
        "lambda_u_cl": "user_contrast_weight",
        "lambda_his_cl": "history_contrast_weight",
    }
    for name, key in keys.items():
        plan = read_plan("GSERec", name)[0]
        assert [dimension.key for dimension in plan.space] == [key]
        assert plan.fixed == {other: value for other, value in optimum.items() if other != key}
        assert (plan.search, plan.scheduler) == ("grid", "none")
        assert weights <= values_of("GSERec", name, key) and values_of("GSERec", "joint", key) == weights
    rates, decays = {0.001, 0.0001, 0.00001}, {0.00001, 0.000001, 0.0000001}
    assert (
        values_of("GSERec", "learning_rate", "learning_rate") == rates == values_of("GSERec", "joint", "learning_rate")
    )
    assert values_of("GSERec", "lambda_reg", "weight_decay") == decays == values_of("GSERec", "joint", "weight_decay")


@pytest.mark.parametrize("space", [5, True, ["alpha"], 0.5])
def test_a_space_that_is_neither_a_name_nor_a_mapping(space: Any) -> None:
    with pytest.raises(ConfigError, match="space: give the name of a sweep, a YAML file"):
        read_plan("SESRec", space)


def test_a_part_that_is_swept_and_given_is_refused() -> None:
    plan, where = read_plan("GSERec", {"codes.rqvae.levels": {"choice": [1, 2]}})
    plan.check(SERConfig("GSERec", "ser-sample", None, {"codes": {"rqvae": {"width": 8}}}), where)
    with pytest.raises(ConfigError, match=r"codes.rqvae.levels is swept and given as well"):
        plan.check(SERConfig("GSERec", "ser-sample", None, {"codes": {"rqvae": {"levels": 3}}}), where)


def test_more_than_two_metrics_are_not_plotted() -> None:
    plan, where = read_plan("SESRec", {"alpha": {"choice": [1.0]}})
    with pytest.raises(ConfigError, match="plot: one or two metrics fit"):
        replace(plan, plot=("mrr", "ndcg@5", "hit@5")).check(SERConfig("SESRec", "ser-sample"), where)
