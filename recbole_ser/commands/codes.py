"""``recbole-ser codes``."""

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


@click.command(cls=ConfiguredCommand, short_help="give users the codes that GSERec reads")
@configuration_options
@click.pass_context
def command(ctx: click.Context, model: str | None, dataset: str | None, config_files: tuple[str, ...]) -> None:
    """Give every user of a data set the discrete codes that GSERec reads.

    They are made from what users searched for and chose in the training period: histories become summaries, summaries
    vectors, vectors codes.  A run without codes makes them by the default.

    \b
      recbole-ser codes --dataset=ser-sample
      recbole-ser codes --dataset=cds --config_files=served.yaml
      recbole-ser codes -d cds --codes.rqvae.lambda_rq_cl=0 --codes_file=without-alignment.codes
      recbole-ser run --model=GSERec --dataset=cds --codes_file=without-alignment.codes

    \b
    where served.yaml holds
      codes:
        summaries: {backend: openai, base_url: http://localhost:8000/v1, model: DeepSeek-R1-Distill-Qwen-7B}
        vectors: {backend: local, path: models/bge-m3}

    Summaries: template (offline, counts words), openai (any server that speaks its protocol: vLLM, Ollama, llama.cpp),
    transformers (a folder), mean (no text, but the mean of the vectors of a side's items and queries).  Vectors:
    tfidf_svd (offline), minilm (offline, an embedding model that is a package), local (a folder of transformers or
    sentence-transformers), openai, precomputed (two .npy files).  Keys of servers are read from the environment:
    {api_key_variable: NAME}.  Answers and vectors are kept as they arrive: an interrupted command goes on where it was,
    and a second one asks for nothing.

    The result is <name>.codes beside the data set and <name>.codes.json, which says how it was made.  All keys of
    `recbole-ser run` that choose the data and the protocol hold here too; properties/overall.yaml lists the defaults.
    """
    with lasting_imports():
        from recbole_ser.codes.tables import codes_table
        from recbole_ser.config import SERConfig
        from recbole_ser.logs import log_to
        from recbole_ser.runner import make_codes

    values = parse_arguments(ctx.args)
    required_keys(dataset=dataset)
    assert dataset is not None
    config = SERConfig(model or "GSERec", dataset, paths_in(config_files), values)
    with log_to(None, config["state"]):
        manifest = make_codes(config)
    print(codes_table(dataset, manifest))
    print(f"{'codes':<20}{config['codes_file']}")
