"""How the commands read their arguments: what click does not have, and options that several commands share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from recbole_ser.bundled import package_folder
from recbole_ser.errors import ConfigError
from recbole_ser.registry import available_models
from recbole_ser.yaml_values import parse_value, read_yaml

F = TypeVar("F", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group whose commands are in modules that are imported only when the command is asked for.

    Args:
        modules: for each name of a command, the module that has it as ``command``.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self.modules.get(cmd_name)
        return None if module is None else importlib.import_module(module).command


class Command(click.Command):
    """A command whose options may be given once only; an option with several values takes all that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = self._one_value_each(ctx, args)
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for option in given:
                if isinstance(option, click.Option) and not option.multiple and given.count(option) > 1:
                    raise click.UsageError(f"{max(option.opts, key=len)} is given twice", ctx)
        return super().parse_args(ctx, args)

    def _one_value_each(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """Turn ``--users a b`` into ``--users a --users b``, which is the form that click reads."""
        options = {name: p for p in self.get_params(ctx) if isinstance(p, click.Option) for name in p.opts}
        result: list[str] = []
        several: str | None = None
        for argument in args:
            if argument.startswith("-") and len(argument) > 1:
                name = argument.partition("=")[0]
                several = name if name in options and options[name].multiple else None
                awaited = several is not None and "=" not in argument
                result.append(argument)
            elif several is not None and not awaited:
                result += [several, argument]
            else:
                awaited = False
                result.append(argument)
        return result


class ConfiguredCommand(Command):
    """A command that takes, besides its options, every key of the configuration as ``--key=value``.

    These arguments are left in ``Context.args``, for ``parse_arguments``.  Without any argument the command prints its
    help.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {"ignore_unknown_options": True, "allow_extra_args": True}
        super().__init__(*args, **{"options_metavar": "--key=value ...", **kwargs})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the options and the keys of the configuration, also those of the model once it is named."""
        items = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("--"):
            files = ["overall.yaml", f"model/{ctx.params.get('model')}.yaml"]
            paths = [path for file in files if (path := package_folder("properties") / file).is_file()]
            keys = [f"--{key}=" for path in paths for key in read_yaml(path)]
            items += [CompletionItem(key) for key in keys if key.startswith(incomplete)]
        return items


def parse_arguments(arguments: Iterable[str]) -> dict[str, Any]:
    """Read ``--key=value`` and ``--key value`` arguments into a dictionary; values are read as YAML.

    Raises:
        ConfigError: an argument has neither form, or a key is given twice.
    """
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        key, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not key:
            raise ConfigError(f"cannot read argument '{argument}': write --key=value")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"argument '{argument}' has no value: write --{key}=value")
            text = rest.pop(0)
        if key in values:
            raise ConfigError(f"argument '--{key}' is given twice")
        values[key] = parse_value(text)
    return values


def paths_in(texts: Sequence[str]) -> list[str]:
    """The paths given to ``--config_files``; one value may hold several paths with spaces between them.

    Raises:
        ConfigError: a value holds none.
    """
    if not all(text.split() for text in texts):
        raise ConfigError("--config_files is empty: name a file, or leave the option out")
    return [path for text in texts for path in text.split()]


def given_options(ctx: click.Context, leave_out: Iterable[str] = ()) -> list[str]:
    """The names of the options that the user gave, except ``leave_out``."""
    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    return [name for name in given if name not in leave_out]


class Yaml(click.ParamType):
    """A parameter whose value is read as YAML."""

    name = "value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return parse_value(value) if isinstance(value, str) else value


# --- options that several commands have -------------------------------------------------------------------------------


def _models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in sorted(available_models()) if name.lower().startswith(incomplete.lower())]


def _datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    known = {path.stem for path in (package_folder("properties") / "dataset").glob("*.yaml")}
    here = {path.parent.name for path in Path("dataset_atomic").glob("*/*.inter")}
    return [name for name in sorted(known | here) if name.startswith(incomplete)]


def configuration_options(command: F) -> F:
    """Give ``command`` the options ``--model``, ``--dataset`` and ``--config_files``, spelt as RecBole spells them."""
    for option in (
        click.option(
            "-c", "--config_files", multiple=True, metavar="FILE ...", help="YAML files with settings; later ones win"
        ),
        click.option("-d", "--dataset", metavar="NAME", shell_complete=_datasets, help="name of the data set"),
        click.option(
            "-m",
            "--model",
            metavar="NAME",
            shell_complete=_models,
            help="name of the model, or module:Class for one of your own",
        ),
    ):
        command = option(command)
    return command


def trusted_model_option(command: F) -> F:
    """Give ``command``, which loads runs, the option ``--model``, by which the user allows foreign code to be run."""
    return click.option(
        "-m",
        "--model",
        metavar="module:Class",
        help="the run's model, if no installed package registers it: its code is run only if you name it",
    )(command)


def dataset_argument(command: F) -> F:
    """Give ``command`` an argument for the data set, a name or a folder, and ``--data_path``, where names are found."""
    command = click.option(
        "--data_path", default="dataset_atomic", show_default=True, metavar="FOLDER", help="folder of data sets"
    )(command)
    return click.argument("dataset", required=False, shell_complete=_datasets)(command)


def split_option(command: F) -> F:
    """Give ``command`` the option ``--split``, the rule of the split whose targets are counted."""
    option = click.option(
        "--split", type=Yaml(), metavar="RULE", help="count the targets of this split alone: '{TS: [0.8, 0.9]}'"
    )
    return option(command)


def required_keys(**values: str | None) -> None:
    """Check that the user gave all of these keys.

    Raises:
        ConfigError: one of them is missing.
    """
    for key, value in values.items():
        if value is None:
            raise ConfigError(f"--{key} is missing: for example --model=SESRec --dataset=ser-sample")
