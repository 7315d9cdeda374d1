"""A table for the terminal that says how well the codes of a data set are used."""

from __future__ import annotations

from typing import Any


def codes_table(dataset: str, manifest: dict[str, Any]) -> str:
    """A table of how well the codes of both sides are used, from the manifest of ``X.codes``."""
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
