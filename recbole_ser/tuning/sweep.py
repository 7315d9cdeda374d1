"""A whole sweep, from its space to a tested configuration."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recbole.model.abstract_recommender import AbstractRecommender

from recbole_ser.codes.stage import build_codes
from recbole_ser.config import SERConfig
from recbole_ser.data.codes import read_codes
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.files import check_writable
from recbole_ser.logs import log_to
from recbole_ser.runner import Prepared, build_trainer, prepare
from recbole_ser.runs.claim import check_claimable, claim, claim_new
from recbole_ser.runs.folder import RunFolder
from recbole_ser.runs.loading import trusted_model
from recbole_ser.runs.result import RunResult, final_table
from recbole_ser.runs.sweep_folder import FAILED, KILLED, SweepFolder, Trial, best_trial
from recbole_ser.tuning import ray_versions
from recbole_ser.tuning.live import LiveTable, terminal_width
from recbole_ser.tuning.plan import Plan, read_plan
from recbole_ser.tuning.plots import write_plots
from recbole_ser.tuning.resources import Resources
from recbole_ser.tuning.search import build_search
from recbole_ser.tuning.space import CODES, grid, is_given, settings
from recbole_ser.tuning.tables import failure_line, sweep_table, write_best, write_tables
from recbole_ser.tuning.trial import Shared, Task, codes_key, trial_config, without_config

_log = logging.getLogger()


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep.

    Args:
        folder: folder of the sweep, with all tables and plots.
        trials: all trials, in the order of their numbers.
        chosen: the trial with the best validation metric.
        test: result of the chosen trial on the test split; no other trial is scored on it.
    """

    folder: Path
    trials: list[Trial]
    chosen: Trial
    test: RunResult


def tune(
    model: str | type[AbstractRecommender],
    dataset: str,
    *,
    space: str | Mapping[str, Any] | None = None,
    search: str | None = None,
    trials: int | None = None,
    scheduler: str | None = None,
    grace_period: int | None = None,
    reduction_factor: int | None = None,
    resources: Resources | None = None,
    storage: str | Path | None = None,
    config_files: str | Path | Sequence[str | Path] | None = None,
    config_dict: dict[str, Any] | None = None,
) -> SweepResult:
    """Try configurations of ``model`` on ``dataset``, choose one by validation, and score the test split with it, once.

    Every trial reports after every evaluated epoch, so that trials that are behind can be given up.  Data, histories
    and candidates are loaded once and shared by all trials.

    Args:
        model, dataset, config_files, config_dict: as for ``run``; what they set holds in every trial.
        space, search, trials, scheduler, grace_period, reduction_factor: what is tried, see ``read_plan`` and ``Plan``;
            ``None`` leaves a value to the sweep's file.
        resources: where the trials run; by default on this machine, one per CPU, or one per GPU if there are any.
        storage: the sweep's folder; by default ``saved/<dataset>/tune-<model>-<sweep>-<time>-<seed>``.  On a cluster
            all machines must see it.

    Raises:
        UserError: an argument is wrong, or no trial came to an end.
        KeyboardInterrupt: the user pressed Ctrl-C; the sweep can be resumed.
    """
    options = {"search": search, "trials": trials, "scheduler": scheduler,
               "grace_period": grace_period, "reduction_factor": reduction_factor}  # fmt: skip
    plan, where = read_plan(model, space, **options)
    config = _with_fixed(plan, SERConfig(model, dataset, config_files, config_dict), where)
    plan.check(config, where)
    trial_config(config.arguments(), _a_point(plan))  # a space that makes no configuration is an error at once
    build_search(plan, config["seed"], 0)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    default = Path("saved") / dataset / f"tune-{config['model']}-{plan.name}-{stamp}-{config['seed']}"
    again = f"recbole-ser tune --resume={storage}{config.named_again()}"
    taken = f"go on with the sweep in it by '{again}', or choose another"
    if storage is None:
        check_writable(default.with_name(".new"))
    else:
        check_claimable(storage, taken)

    def start() -> SweepFolder:
        path = claim_new(default) if storage is None else claim(storage, taken)
        return SweepFolder.start(path, {"plan": plan.to_json(), "arguments": config.arguments()})

    return _tune(config, plan, resources or Resources(), start)


def resume(
    path: str | Path,
    *,
    model: str | type[AbstractRecommender] | None = None,
    trials: int | None = None,
    resources: Resources | None = None,
) -> SweepResult:
    """Go on with the sweep in folder ``path``.

    Trials that have ended are kept; the others go on from their checkpoints, also those whose process died.

    Args:
        model: the sweep's model, if no installed package registers it: loading a folder runs no code that only the
            folder names.
        trials: a new number of trials, for ``random`` and ``tpe``; ``None``: the number that the sweep had.
        resources: as for ``tune``.

    Raises:
        UserError: there is no sweep in the folder, or ``tune`` would raise it.
    """
    folder = SweepFolder.load(path)
    content = folder.content()
    plan = Plan.from_json(content["plan"], f"{folder.path / 'sweep.json'}")
    arguments = content["arguments"]
    config = SERConfig(**{**arguments, "model": trusted_model(folder.path, arguments["model"], model)})
    if trials is not None and trials != plan.trials:
        plan = replace(plan, trials=trials)
        plan.check(config, "--resume")
        if plan.search == "grid" or trials < len(folder.trials()):
            raise ConfigError(f"--trials={trials}: a grid has as many as it has, and what was begun is not taken back")
        folder.update({**content, "plan": plan.to_json()})
    return _tune(config, plan, resources or Resources(), folder)


def _tune(
    config: SERConfig, plan: Plan, resources: Resources, folder: SweepFolder | Callable[[], SweepFolder]
) -> SweepResult:
    """Tune in ``folder``; if that is a function, in the new one that it makes when all that a sweep needs is there."""
    ray_versions.import_ray(loopback=not resources.address)
    from recbole_ser.tuning import engine  # imports Ray, which takes a while

    metric = config["valid_metric"].lower()
    with ExitStack() as held:
        also_log_to = held.enter_context(log_to(None, config["state"]))

        def enter(folder: SweepFolder) -> SweepFolder:
            held.enter_context(folder.locked())
            also_log_to(folder.log)
            return folder

        if isinstance(folder, SweepFolder):
            enter(folder)
        swept_codes = any(dimension.key.startswith(f"{CODES}.") for dimension in plan.space)
        prepared = prepare(config, with_codes=not swept_codes)
        held.enter_context(engine.cluster(resources))
        wanted = engine.per_trial(resources)
        if not isinstance(folder, SweepFolder):
            folder = enter(folder())
        shared = Shared(without_config(prepared), _codes(plan, config, prepared, folder) if swept_codes else {})
        task = Task(config.arguments(), metric, str(folder.trials_path), str(Path.cwd()), has_gpu="gpu" in wanted)
        _log.info(f"{plan.trials} trials of {config['model']} ({plan.search}, {plan.scheduler}): {folder.path}")
        search = build_search(plan, config["seed"], len(folder.trials()))
        session = engine.Trials(plan, search, folder, metric, LiveTable(plan.trials, metric), config["epochs"])
        reference = engine.share(shared)
        del prepared, shared  # the trials' copy is used from here on
        try:
            engine.run_trials(task, reference, session, wanted, resources.concurrent)
        except KeyboardInterrupt:
            _log.warning(f"interrupted: go on with: {_resume_command(config, folder)}")
            raise
        finally:
            write_tables(folder, folder.read_trials(metric))
        trials = folder.read_trials(metric)
        chosen = _choose(trials)
        result = _test(config, chosen, engine.fetch(reference), folder)
    _conclude(config, plan, folder, trials, chosen)
    print(sweep_table(trials, metric, terminal_width()))
    print(f"\nchosen is trial {chosen.number}, by {metric} in validation")
    print(final_table(result))
    print(f"{'sweep':<12}{folder.path}")
    return SweepResult(folder.path, trials, chosen, result)


def _with_fixed(plan: Plan, config: SERConfig, where: str) -> SERConfig:
    """``config`` with the values that the plan fixes, except for keys that the user gave."""
    for key in plan.fixed:
        if key in {dimension.key for dimension in plan.space}:
            raise ConfigError(f"{where}: {key} is swept and fixed")
    missing = {key: value for key, value in plan.fixed.items() if not is_given(key, config.external_config_dict)}
    arguments = config.arguments()
    try:
        return SERConfig(**{**arguments, "config_dict": {**arguments["config_dict"], **settings(missing, config)}})
    except ConfigError as error:
        raise ConfigError(f"{where}: fixed: {error}") from error


def _a_point(plan: Plan) -> dict[str, Any]:
    return {dimension.key: dimension.values[0] for dimension in plan.space}


def _codes(plan: Plan, config: SERConfig, prepared: Prepared, folder: SweepFolder) -> dict[str, Any]:
    """Make codes for every combination of the swept values that decide them; codes made before are only read."""
    made = {}
    points = grid(tuple(d for d in plan.space if d.key.startswith(f"{CODES}.")), plan.name)
    for number, values in enumerate(points):
        path = folder.path / "codes" / f"{number:03d}.codes"
        _log.info(f"codes {number + 1} of {len(points)}: {codes_key(values)}")
        if not Path(f"{path}.json").is_file():
            build_codes(prepared.dataset, settings(values, config)["codes"], path, config["show_progress"])
        made[codes_key(values)] = (str(path), read_codes(path, prepared.dataset))
    return made


def _choose(trials: list[Trial]) -> Trial:
    for trial in trials:
        if trial.status in (FAILED, KILLED):
            _log.warning(failure_line(trial))
    chosen = best_trial(trials)
    if chosen is None:
        first = f"; the first: {failure_line(trials[0])}" if trials else ""
        raise UserError(f"no trial came to an end{first}")
    return chosen


def _test(base: SERConfig, chosen: Trial, shared: Shared, folder: SweepFolder) -> RunResult:
    """Score the test split with the best weights of the chosen trial, unless that was done before."""
    before = folder.result()
    if before is not None and before[0] == chosen.number:
        return before[1]
    config = trial_config(base.arguments(), chosen.values)
    run = RunFolder(folder.trial(chosen.number).path)
    prepared = shared.under(config, chosen.values)
    trainer = build_trainer(config, run, prepared)
    trainer.best_epoch, trainer.best_valid_result = chosen.best_epoch, chosen.valid
    result = trainer.test(prepared.targets("test"), show_progress=config["show_progress"])
    trainer.tensorboard.close()
    folder.write_result(chosen, result)
    return result


def _conclude(config: SERConfig, plan: Plan, folder: SweepFolder, trials: list[Trial], chosen: Trial) -> None:
    """Write the sweep's ``best.yaml`` and plots."""
    path = folder.path / "best.yaml"
    values = RunFolder.load(folder.trial(chosen.number).path).arguments()["config_dict"]
    values.pop("run_dir", None)  # a new run has a folder of its own
    command = f"recbole-ser run --model={config.arguments()['model']} --dataset={config['dataset']}"
    write_best(path, values, f"{command} --config_files={shlex.quote(str(path))}")
    try:
        write_plots(plan, trials, folder.plots, config["valid_metric"].lower())
    except UserError as error:  # matplotlib is missing, which does not hurt the sweep
        _log.warning(f"{error}; then: {_resume_command(config, folder)}")


def _resume_command(config: SERConfig, folder: SweepFolder) -> str:
    return f"recbole-ser tune --resume={shlex.quote(str(folder.path))}{config.named_again()}"
