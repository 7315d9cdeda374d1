"""SimGCL, which contrasts two propagations of the same graph that are disturbed by small noise.

Yu et al., "Are Graph Augmentations Necessary? Simple Graph Contrastive Learning for Recommendation", SIGIR 2022,
https://doi.org/10.1145/3477495.3531937.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_ser.model.interaction_graph import GraphRecommender, Nodes, contrast_of_views
from recbole_ser.model.layers import random_int16
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.types import Positive, Weight
from recbole_ser.workers.rows import drawn_alike


class SimGCL(GraphRecommender):
    """SimGCL on LightGCN.  The equations are numbered here, with A LightGCN's propagation of all users and items:

    (1) e(k) = A e(k - 1), e = 1 / K sum_{k = 1..K} e(k), without the layer 0; y = e_u' e_i
    (2) a view: z(k) = A z(k - 1) + eps * n / |n| * sign(A z(k - 1)), z(0) = e(0), z = 1 / K sum_{k = 1..K} z(k), with n
        uniform in [0, 1) for every node, layer and dimension; z' and z'' are two views
    (3) L_user = mean over the distinct users u of the batch of -log(exp(cos(z'_u, z''_u) / tau) / sum_v
        exp(cos(z'_u, z''_v) / tau)), v over the distinct users of the batch; L_item likewise over the positive items
    (4) L = L_rec + lambda (L_user + L_item) + mu / 2 * (squared lengths of the row's vectors e(0), averaged)

    Faithful to the paper: the noise has length eps, lies in the orthant of the vector and enters the next layer; the
    layer 0 is in no mean; three propagations per step, of which the undisturbed one recommends; BPR by default; the
    temperature is fixed.  Users and items are their ids; attributes in ``load_col`` are not read.

    (2) has the gradient of (1), for that of the sign is zero.  So the views are (1) plus a constant, and the three
    propagations have one backward pass.

    Adapted to this package: the graph, the negatives and ``loss_type`` as in LightGCN.

    Where public implementations differ:

    - (4): an implementation by the first author regularises the users and positives after propagation, not e(0).
    - RecBole-GNN's contrast is the sum over the nodes, so that its lambda is smaller by orders of magnitude.

    Decided here: the noise takes one of 2**15 values per dimension, which is what 15 random bits give.  A user or item
    without a training interaction is zero, and scores 0 with everything.

    Confidence: high.
    """

    class Settings(GraphRecommender.Settings):
        eps: Positive = setting("length of the noise that is added to each node in each layer of a view")
        ssl_weight: Weight = setting("lambda, weight of the contrast of views")
        ssl_tau: Positive = setting("tau, the temperature of the contrast")

    first_layer = 1

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.eps, self.temperature = settings.eps, settings.ssl_tau
        self.ssl_weight = settings.ssl_weight

    def auxiliary_losses(self, interaction: Any, state: Tensor) -> dict[str, Tensor]:
        nodes = self.in_batch(interaction)
        clean = self.propagated().of(*nodes)
        left, right = (with_gradient_of(self.view().of(*nodes), clean) for _ in range(2))
        contrast = contrast_of_views(left, right, self.temperature)  # (3)
        return {**super().auxiliary_losses(interaction, state), "contrast": contrast}

    def loss_weights(self) -> dict[str, float]:
        return {**super().loss_weights(), "contrast": self.ssl_weight}

    @torch.no_grad()
    def view(self) -> Nodes:
        """(2) for all users and items, with new noise and without a gradient."""
        return self.graph.mean(self.layer_0, self.layers, self.first_layer, self.disturbed)

    def disturbed(self, vectors: Tensor) -> Tensor:
        """``vectors [n, d]`` with the noise of one layer."""
        with drawn_alike():
            noise = random_int16(vectors.shape, vectors.device).bitwise_and_(2**15 - 1).to(vectors.dtype)
        return vectors + self.eps * F.normalize(noise, dim=1) * vectors.sign()


def with_gradient_of(values: Nodes, source: Nodes) -> Nodes:
    """Vectors that are equal to ``values`` and pass their gradient on to ``source``."""
    return Nodes(*(value + (vectors - vectors.detach()) for value, vectors in zip(values, source)))
