"""SGL, which contrasts the vectors that two incomplete graphs give the same user or item.

Wu et al., "Self-supervised Graph Learning for Recommendation", SIGIR 2021, https://doi.org/10.1145/3404835.3462862.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recbole_ser.model.interaction_graph import GraphRecommender, Nodes, contrast_of_views
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.types import Positive, Probability, Weight
from recbole_ser.workers.rows import drawn_alike


class SGL(GraphRecommender):
    """SGL with edge dropout (SGL-ED) on LightGCN.  The equations are numbered here, with P_G the mean over the layers
    0 to K of LightGCN's propagation over the graph G:

    (1) e = P_G e(0) with the whole graph, y = e_u' e_i
    (2) z' = P_G' e(0) and z'' = P_G'' e(0), where every edge is left out of G' and of G'' with probability rho, and the
        rest is normalised by the degrees that are left
    (3) L_user = mean over the users u of the batch of -log(exp(cos(z'_u, z''_u) / tau) / sum_v exp(cos(z'_u, z''_v) /
        tau)), v over the users of the batch, each distinct user once; L_item likewise over the positive items
    (4) L = L_rec + lambda_1 (L_user + L_item) + lambda_2 / 2 * (squared lengths of the row's vectors e(0), averaged)

    Faithful to the paper: G' and G'' are drawn anew for every epoch, independently of each other; the recommendation
    loss is that of the whole graph; BPR by default; the temperature is fixed.  Users and items are their ids;
    attributes in ``load_col`` are not read.

    Adapted to this package: the graph, the negatives and ``loss_type`` as in LightGCN.

    Where public implementations differ:

    - (3): the authors' code and RecBole's take v over all users (items), a matrix of batch by catalogue; two million
      items do not allow that.  In a batch the sum has fewer terms, so a fitting lambda_1 may be another one.
    - All terms of (4) are sums over the batch there, and a user with several rows counts several times in (3).  Divided
      by the number of rows they are the means taken here, so lambda_1 keeps its scale.
    - (2): the authors' code leaves out exactly the share rho of the edges.

    Decided here: between two epochs, and for a model that never began one, the graphs are those drawn last, first at
    the construction.  A node that loses all edges is e(0) / (K + 1) in that view.

    Confidence: high; medium for lambda_1 with the sum over the batch.  The variants with node dropout and random walks
    are left out: the paper's edge dropout is the better one in most cases.
    """

    class Settings(GraphRecommender.Settings):
        drop_ratio: Probability = setting("rho, the probability of leaving an edge out of a view")
        ssl_weight: Weight = setting("lambda_1, weight of the contrast of views")
        ssl_tau: Positive = setting("tau, the temperature of the contrast")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.drop_ratio, self.temperature = settings.drop_ratio, settings.ssl_tau
        self.ssl_weight = settings.ssl_weight
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the graphs G' and G'' from the global random state, which is that of the epoch."""
        with drawn_alike():
            self.views = nn.ModuleList(self.graph.without_some_edges(self.drop_ratio) for _ in range(2))

    def auxiliary_losses(self, interaction: Any, state: Tensor) -> dict[str, Tensor]:
        nodes = self.in_batch(interaction)
        left, right = (self.view(graph).of(*nodes) for graph in self.views)  # (2)
        contrast = contrast_of_views(left, right, self.temperature)  # (3)
        return {**super().auxiliary_losses(interaction, state), "contrast": contrast}

    def loss_weights(self) -> dict[str, float]:
        return {**super().loss_weights(), "contrast": self.ssl_weight}

    def view(self, graph: nn.Module) -> Nodes:
        """The vectors of all users and items by ``graph``."""
        return graph(self.layer_0, self.layers, self.first_layer)
