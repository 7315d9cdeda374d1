"""The command line: ``recbole-ser run``, ``recommend``, ``convert``, ``validate``, ``describe`` and so on."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from recbole_ser import __version__
from recbole_ser.errors import UserError

_RUN_HELP = """\
Train a model on a data set, choose the best epoch on the validation split, score the test split once.

  recbole-ser run --model=SESRec --dataset=ser-sample
  recbole-ser run --model=SASRec --dataset=kindle --loss_type=BPR --learning_rate=1e-3
  recbole-ser run --model=SESRec --dataset=mine --config_files="common.yaml mine.yaml"
  recbole-ser run --resume=saved/kindle/SESRec-20260101-120000-2023

Every key of properties/overall.yaml, of the model's and of the data set's YAML file can be given as --key=value;
values are YAML ({mode: full}, [1, 5], 1e-3, ~).  A part of a mapping is enough: --eval_args="{mode: full}".
"""

COMMANDS = {
    "groups": ("recbole_ser.groups", "compare finished runs by how much their users searched"),
    "recommend": ("recbole_ser.recommend", "the best items for users of a finished run, or for histories in a file"),
    "convert table": (
        "recbole_ser.convert.table.command",
        "any logs in CSV, TSV, JSON lines or Parquet",
    ),
    "convert amazon": ("recbole_ser.convert.amazon", "Amazon reviews and product-search queries"),
    "convert kuaisar": ("recbole_ser.convert.layouts.kuaisar", "KuaiSAR's recommendation and search logs"),
    "convert qilin": ("recbole_ser.convert.layouts.qilin", "Qilin's tables"),
    "convert trivago": ("recbole_ser.convert.layouts.trivago", "the log of the RecSys Challenge 2019"),
    "validate": ("recbole_ser.validate", "name everything that is wrong with a data set's files"),
    "describe": ("recbole_ser.describe", "print the statistics of a data set that papers print"),
    "synthesize": ("recbole_ser.data.synthetic", "write a generated data set of any size"),
    "doctor": ("recbole_ser.doctor", "print versions, devices and known incompatibilities"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.  Returns 0, or 2 where the user's input is wrong, which it says on standard error."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv and argv[0] in _CONFIGURED:
            return _CONFIGURED[argv[0]](argv[1:])
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141


def _run(argv: list[str]) -> int:
    from recbole_ser.config import parse_arguments
    from recbole_ser.errors import ConfigError
    from recbole_ser.runner import resume, run

    if not argv or {"-h", "--help"} & set(argv):
        print(_RUN_HELP + "\n" + _model_list())
        return 0
    values = parse_arguments(argv)
    folder = values.pop("resume", None)
    if folder is not None:
        if values:
            raise ConfigError(f"--resume takes the run's own configuration; leave out --{next(iter(values))}")
        resume(str(folder))
        return 0
    for key in ("model", "dataset"):
        if key not in values:
            raise ConfigError(f"--{key} is missing: for example --model=SESRec --dataset=ser-sample")
    run(str(values.pop("model")), str(values.pop("dataset")), config_files=_paths(values), config_dict=values)
    return 0


def _codes(argv: list[str]) -> int:
    from recbole_ser.codes.command import HELP, make_codes
    from recbole_ser.config import parse_arguments
    from recbole_ser.errors import ConfigError

    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    values = parse_arguments(argv)
    if "dataset" not in values:
        raise ConfigError("--dataset is missing: for example --dataset=ser-sample")
    make_codes(str(values.pop("dataset")), _paths(values), values, str(values.pop("model", "GSERec")))
    return 0


def _tune(argv: list[str]) -> int:
    from recbole_ser.config import parse_arguments
    from recbole_ser.tune.command import HELP, run_sweep

    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    values = parse_arguments(argv)
    run_sweep(values, _paths(values))
    return 0


# Commands that take every key of the configuration as --key=value, which argparse cannot.
_CONFIGURED = {"run": _run, "codes": _codes, "tune": _tune}


def _paths(values: dict[str, Any]) -> list[str] | None:
    files = values.pop("config_files", None)
    return files.split() if isinstance(files, str) else files


def _model_list() -> str:
    from recbole_ser.registry import available_models

    specs = sorted(available_models().values(), key=lambda spec: spec.name.lower())
    wide = [max(map(len, column)) + 2 for column in zip(*((spec.name, spec.paper) for spec in specs))]
    lines = [
        f"  {spec.name:<{wide[0]}}{spec.paper:<{wide[1]}}{'reads ' + ', '.join(spec.reads) if spec.reads else ''}"
        for spec in specs
    ]
    return "\n".join(["models:", *(line.rstrip() for line in lines)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="recbole-ser", description="Search-enhanced recommendation on RecBole.")
    parser.add_argument("--version", action="version", version=f"recbole-ser {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("run", help="train and evaluate a model", add_help=False)
    commands.add_parser("tune", help="try many configurations of a model, and test the best", add_help=False)
    commands.add_parser("codes", help="give users the codes that GSERec reads", add_help=False)
    groups: dict[str, argparse._SubParsersAction[argparse.ArgumentParser]] = {}
    for name, (module, help_text) in COMMANDS.items():
        group, _, source = name.rpartition(" ")
        if group and group not in groups:
            outer = commands.add_parser(group, help="turn raw logs into atomic files")
            groups[group] = outer.add_subparsers(required=True, metavar="source")
        command = (groups[group] if group else commands).add_parser(
            source, help=help_text, description=help_text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        _fill_in(command, module)
    return parser


def _fill_in(command: argparse.ArgumentParser, module_name: str) -> None:
    module = importlib.import_module(module_name)
    module.add_arguments(command)
    command.set_defaults(run=module.run)


if __name__ == "__main__":
    sys.exit(main())
