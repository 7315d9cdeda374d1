"""The settings of the users' codes (GSERec's first stage)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from recbole_ser.settings.declaration import Settings, setting
from recbole_ser.settings.types import Count, StartTemperature, Weight, Width, Widths

SMALLEST_EPSILON = 0.003  # exp(-2 / epsilon), the smallest share that Sinkhorn starts from, must be a normal double


class RQVAESpec(Settings):
    """How codes are made of vectors (GSERec, section 4.1.2); the defaults are the published values, except for
    ``max_steps`` and ``tolerance``, which are not published: there training takes all epochs, and the weights with the
    lowest collision rate are kept; here those of the last epoch are.

    With fewer distinct vectors than ``users_per_code`` for each code, K is lowered on this side, since a code that
    hardly anyone shares relates its users to nobody.  Published data sets have 48 to 750.
    """

    levels: Annotated[int, Field(ge=1, le=16)] = setting("L, levels of codes", default=4)
    codebook_size: Annotated[int, Field(ge=1, le=65_536)] = setting("K, codes on each level", default=256)
    users_per_code: Count = setting("the least number of distinct vectors of a side for each code", default=48)
    width: Width = setting("w, the width of a code", default=32)
    hidden: Widths = setting(
        "widths of the hidden layers of the encoders, in reverse those of the decoders; layers more than twice as wide "
        "as a side's vectors are left out, but for the last one", default=[512, 256, 128, 64],
    )  # fmt: skip
    lambda_rq: Weight = setting("weight of the quantisation in Eq. 6", default=1.0)
    lambda_rq_cl: Weight = setting("weight of Eq. 1, a mean over both directions, in Eq. 6; 0: none", default=1e-4)
    commitment: Weight = setting("weight of the second term of Eq. 5", default=0.25)
    temperature: StartTemperature = setting("tau_1 of Eq. 1, where it starts", default=0.1)
    learning_rate: Annotated[float, Field(gt=0, le=10)] = setting("of AdamW", default=1e-3)
    weight_decay: Annotated[float, Field(ge=0, le=1)] = setting("of AdamW", default=1e-7)
    gradient_norm: Annotated[float, Field(gt=0)] = setting("the norm that gradients are clipped to", default=1.0)
    batch_size: Count = setting("users in a training batch", default=1024)
    epochs: Count = setting("epochs of the budget", default=500)
    max_steps: Count = setting(
        "steps of the budget, as many whole epochs as reach it; over a tenth of them the learning rate rises, then it "
        "falls to 0, both in a straight line", default=4000,
    )  # fmt: skip
    tolerance: Annotated[float, Field(ge=0, le=1)] = setting(
        "training ends once, over a fifth of the budget and at least three epochs, neither reconstruction nor "
        "collision rate has become better by this share of the best before", default=0.01,
    )  # fmt: skip
    sinkhorn_epsilon: Annotated[float, Field(ge=SMALLEST_EPSILON, le=1_000)] = setting(
        "sharpness of the assignment of the last level's codes in training", default=0.003
    )
    sinkhorn_iterations: Annotated[int, Field(ge=1, le=10_000)] = setting("of the same", default=50)
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = setting("of all random draws", default=2024)


class CodesSettings(Settings):
    """The block ``codes``."""

    summaries: str | dict[str, Any] = setting(
        "back-end that summarises histories, or {backend: name, option: value}; mean: no text, but the mean of the "
        "vectors of a side's items and queries"
    )
    vectors: str | dict[str, Any] = setting("back-end that makes vectors of summaries, or {backend: name, ...}")
    max_records: Annotated[int, Field(ge=1, le=10_000)] = setting(
        "latest searches, and latest interactions, of the training period that are summarised"
    )
    max_clicks: Annotated[int, Field(ge=1, le=1_000)] = setting("first clicked items of each of these searches")
    until: Annotated[float, Field(gt=0, le=1)] = setting(
        "the share of each user's events of the training period, from the first one on, that codes are made from; 1: "
        "all, as published, so that in training codes know their user's later targets"
    )
    missing_side: Literal["copy", "empty"] = setting("summary of a side without events: the other side's, or none")
    rqvae: RQVAESpec = setting("how vectors become codes: what differs from the published values")
