"""LightGCN, which averages the vectors of users and items over the layers of a linear propagation.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020,
https://doi.org/10.1145/3397271.3401063.
"""

from __future__ import annotations

from recbole_ser.model.interaction_graph import GraphRecommender


class LightGCN(GraphRecommender):
    """LightGCN.  The equations are numbered here, with e(0) the vectors that are trained:

    (1) e_u(k) = sum of e_i(k - 1) / sqrt(|N_u| |N_i|) over the items i in N_u, and likewise e_i(k) over the users
    (2) e = 1 / (K + 1) sum_{k = 0..K} e(k)
    (3) y = e_u' e_i
    (4) L = L_rec + lambda / 2 * (squared lengths of e_u(0), e_i(0) and e_j(0), averaged over the rows), for the user,
        the positive i and every negative j of a row

    Faithful to the paper: no transformation, activation or self-loop in (1), equal weights in (2), BPR as L_rec by
    default, the regularisation of layer 0 alone, Xavier initialisation, no dropout.  Users and items are their ids;
    attributes in ``load_col`` are not read.  (4) regularises the vectors of a row, as the authors' code does; the paper
    writes those of all users and items.

    Adapted to this package:

    - N are the distinct pairs of the training period.
    - A row has several negatives, all of which are in L_rec and in (4), and ``loss_type`` has other losses; under CE
      the negatives are not used, nor are they in (4).

    Where public implementations differ: RecBole's (4) has a length of all vectors of a batch where this has squares, so
    its weight cannot be compared with ``reg_weight``.

    Decided here: a user or item without a training interaction is e(0) / (K + 1), and an unknown user is zero, so that
    all items score 0.

    Confidence: high.
    """
