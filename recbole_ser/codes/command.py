"""``recbole-ser codes``: the codes of a data set's users."""

from __future__ import annotations

from typing import Any

import torch

from recbole_ser.codes.stage import build_codes
from recbole_ser.config import SERConfig
from recbole_ser.data.dataset import SERDataset
from recbole_ser.runner import locate_data
from recbole_ser.train.log import log_to

HELP = """\
Give every user of a data set discrete codes, from what they searched for and chose in the training period: histories
become summaries, summaries vectors, vectors codes.  GSERec reads them; a run without them makes them by the default.

  recbole-ser codes --dataset=ser-sample
  recbole-ser codes --dataset=cds --config_files=served.yaml
  recbole-ser codes --dataset=cds --codes="{rqvae: {lambda_rq_cl: 0}}" --codes_file=without-alignment.codes
  recbole-ser run --model=GSERec --dataset=cds --codes_file=without-alignment.codes

where served.yaml holds

  codes:
    summaries: {backend: openai, base_url: http://localhost:8000/v1, model: DeepSeek-R1-Distill-Qwen-7B}
    vectors: {backend: local, path: models/bge-m3}

Summaries: template (offline, counts words), openai (any server that speaks its protocol: vLLM, Ollama, llama.cpp),
transformers (a folder).  Vectors: tfidf_svd (offline), local (a folder of transformers or sentence-transformers),
openai, precomputed (two .npy files).  Keys of servers are read from the environment: {api_key_variable: NAME}.
Answers are kept as they arrive: an interrupted command goes on where it was, and a second one asks for nothing.

The result is <name>.codes beside the data set and <name>.codes.json, which says how it was made.  All keys of
`recbole-ser run` that choose the data and the protocol hold here too; properties/overall.yaml lists the defaults.
"""


def make_codes(dataset: str, config_files: list[str] | None, values: dict[str, Any], model: str = "GSERec") -> None:
    """Make the codes that ``model`` reads anew, and print what came out.

    Raises:
        UserError: see ``build_codes``.
    """
    config = SERConfig(model, dataset, config_files, values)
    if config["num_threads"]:
        torch.set_num_threads(config["num_threads"])
    with log_to(None, config["state"]):
        locate_data(config)
        manifest = build_codes(SERDataset(config), config["codes"], config["codes_file"], config["show_progress"])
    print(codes_table(dataset, manifest))
    print(f"{'codes':<20}{config['codes_file']}")


def codes_table(dataset: str, manifest: dict[str, Any]) -> str:
    """How well the codes of either side are used, from the manifest."""
    report = manifest["report"]["rqvae"]
    search, rec = report["search"], report["rec"]
    rows = [
        ("distinct vectors", *(f"{side['distinct']:,}" for side in (search, rec))),
        ("codes per level", *(f"{side['codebook_size']:,}" for side in (search, rec))),
    ]
    for level, both in enumerate(zip(search["levels"], rec["levels"]), start=1):
        rows.append((f"level {level}: in use", *(f"{side['use']:.0%}" for side in both)))
        rows.append(("  perplexity", *(f"{side['perplexity']:.0f}" for side in both)))
    for when in ("before", "after"):
        rows.append((f"collisions {when}", *(f"{side['collision_rate'][when]:.2%}" for side in (search, rec))))
    backends = f"{manifest['summaries']['backend']} summaries, {manifest['vectors']['backend']} vectors"
    return "\n".join(
        [
            f"codes of {dataset}: {backends}, RQ-VAE {report['stopped']} after {report['steps']:,} steps",
            f"{'':<20}{'search':>10}{'rec':>10}",
            *(f"{name:<20}{first:>10}{second:>10}" for name, first, second in rows),
        ]
    )
