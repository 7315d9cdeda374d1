"""``recbole-ser texts``."""

from __future__ import annotations

import click

from recbole_ser.commands.arguments import (
    ConfiguredCommand,
    configuration_options,
    parse_arguments,
    paths_in,
    required_keys,
)
from recbole_ser.commands.imports import lasting_imports
from recbole_ser.errors import ConfigError
from recbole_ser.registry import available_models


@click.command(cls=ConfiguredCommand, short_help="give items and users the vectors of texts that KAR and LLM-ESR read")
@configuration_options
@click.pass_context
def command(ctx: click.Context, model: str | None, dataset: str | None, config_files: tuple[str, ...]) -> None:
    """Give every item and every user of a data set the vector of a text about it, for the models that read texts.

    Items have the text of their attributes, users that of what they chose in the training period; a language model may
    write better ones.  All vectors are in one space.  A run without them makes them by the default.

    \b
      recbole-ser texts --dataset=cds --texts.vectors=minilm
      recbole-ser texts --dataset=cds --texts.vectors=minilm --texts.users=mean --texts_folder=means
      recbole-ser texts --dataset=cds --config_files=served.yaml

    \b
    where served.yaml holds
      texts:
        items: {backend: openai, base_url: http://localhost:8000/v1, model: Qwen2.5-7B-Instruct}
        users: {backend: openai, base_url: http://localhost:8000/v1, model: Qwen2.5-7B-Instruct}
        factors: [genre, artist, mood]
        vectors: {backend: local, path: models/bge-m3}

    Items: attributes (offline), openai (any server that speaks its protocol), transformers (a folder).  Users: template
    (offline, counts words), openai, transformers, mean (of the vectors of the history's texts).  Vectors: tfidf_svd
    (offline), minilm (offline, an embedding model that is a Python package), local (a folder), openai.  Answers and
    vectors are kept as they arrive: an interrupted command goes on where it was, and a second one asks for nothing.

    The result is the folder <name>.texts beside the data set, with texts.json, which says how it was made.  All keys of
    `recbole-ser run` that choose the data and the protocol hold here too; properties/overall.yaml lists the defaults.
    """
    with lasting_imports():
        from recbole_ser.config import SERConfig
        from recbole_ser.logs import log_to
        from recbole_ser.runner import make_texts
        from recbole_ser.texts.tables import texts_table

    values = parse_arguments(ctx.args)
    required_keys(dataset=dataset)
    assert dataset is not None
    config = SERConfig(model or _a_reader(), dataset, paths_in(config_files), values)
    with log_to(None, config["state"]):
        manifest = make_texts(config)
    print(texts_table(dataset, manifest))
    print(f"{'texts':<12}{config['texts_folder']}")


def _a_reader() -> str:
    """The name of the first registered model that reads texts."""
    for name, spec in available_models().items():
        if "texts" in spec.reads:
            return name
    raise ConfigError("none of the registered models reads texts: name yours with --model=package.module:Class")
