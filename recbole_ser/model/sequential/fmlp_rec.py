"""FMLP-Rec, which encodes a history by filters in the frequency domain instead of attention.

Zhou et al., "Filter-enhanced MLP is All You Need for Sequential Recommendation", WWW 2022,
https://doi.org/10.1145/3485447.3512111.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ser.model.base import DotProductRecommender
from recbole_ser.model.embeddings import item_embedding
from recbole_ser.model.layers import Dropout
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths
from recbole_ser.settings.types import Layers, Probability

SPREAD = 0.02  # standard deviation of initial weights
EPSILON = 1e-12  # of LayerNorm


class FMLPRec(DotProductRecommender):
    """FMLP-Rec over the L latest interactions, L being ``MAX_ITEM_LIST_LENGTH``.

    The equations are numbered here.  The history is padded on the left to L places, e_t is the item at place t, zero
    where there is padding, and p_t is a learnt vector of the place.  Each of N blocks has a filter W of its own, with a
    complex number for each of L // 2 + 1 frequencies and each of the d dimensions:

    (1) x_t = Dropout(LN(e_t + p_t))
    (2) f = iFFT(W * FFT(x)), along the places, which is a circular convolution over the whole window
    (3) y_t = LN(x_t + Dropout(f_t))
    (4) x_t = LN(y_t + Dropout(W_2 gelu(W_1 y_t + b_1) + b_2)), 4 d wide inside
    (5) the logit of item v: x_L' e_v

    Faithful to the published code, which fixes what the paper leaves open: (1) to (5) with the real FFT, scaled by
    1 / sqrt(L) in either direction; gelu in its exact form; LayerNorm with 1e-12 inside the root; normal initial
    weights with a standard deviation of 0.02, biases of 0.  Padding takes part everywhere: it has its place's vector,
    and nothing masks it.  The filter reads every place, so only the last one can learn to predict, and a trained model
    has one L.

    Adapted to this package:

    - Items are their id and attributes, projected to d. The projection keeps the scale, so that items start with about
      the published standard deviation of 0.02; without that, places would drown them in (1).
    - The loss is the mean over the positive and all ``sample_num`` negatives (BCE), or as ``loss_type`` says;
      published: the sum of the positive's and one negative's, averaged over the rows.
    - Training rows are those of all models. Published, they are a user's latest L training interactions, the first
      one of all included, whose history is empty. Here a first interaction is a row with ``require_both_histories:
      false`` alone; with ``true``, every row has a history.

    Where the published code differs:

    - Padding's item vector is random there (initialised over the zero row and never trained); here it is zero. Either
      is one constant beside a learnt vector of the place.

    Decided here: in the last block, (3) and (4) are computed at the last place alone, as nothing reads the others; a
    user without any history is L places of padding, as published; the imaginary parts of W at frequency 0 and, with an
    even L, at the highest one have no effect, as published.

    Confidence: high; another program written from this description got the published results from the published
    weights.
    """

    class Settings(DotProductRecommender.Settings, ItemWidths):
        n_layers: Layers = setting("N, the number of blocks")
        dropout_prob: Probability = setting("probability of dropout")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, dropout, self.length = settings.hidden_size, settings.dropout_prob, config["MAX_ITEM_LIST_LENGTH"]
        self.items = item_embedding(settings, dataset)
        self.positions = nn.Embedding(self.length, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(FilterBlock(self.length, width, dropout) for _ in range(settings.n_layers))
        self.apply(initialise_normal)
        projection = self.items.projection
        assert isinstance(projection, nn.Linear)
        nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def encode(self, interaction: Any) -> Tensor:
        """x_L of (5): ``[B, d]``."""
        window = latest(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], self.length)  # [B, L]
        vectors = self.items(window) * (window != 0).unsqueeze(2) + self.positions.weight  # [B, L, d]
        states = self.dropout(self.norm(vectors))  # (1)
        for number, block in enumerate(self.blocks, start=1):
            states = block(states, last_place_only=number == len(self.blocks))
        return states.squeeze(1)


class FilterBlock(nn.Module):
    """A filter along all places and a position-wise network; after each a residual connection and LayerNorm."""

    def __init__(self, length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.filter = nn.Parameter(SPREAD * torch.randn(length // 2 + 1, width, 2))  # W: real and imaginary parts
        self.filter_norm = nn.LayerNorm(width, eps=EPSILON)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.network_norm = nn.LayerNorm(width, eps=EPSILON)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, last_place_only: bool) -> Tensor:
        """``[B, L, d]`` from ``[B, L, d]``, or ``[B, 1, d]``, what the block gives at the last place."""
        spectrum = torch.fft.rfft(states, dim=1, norm="ortho") * torch.view_as_complex(
            self.filter
        )  # [B, L // 2 + 1, d]
        filtered = torch.fft.irfft(spectrum, n=states.shape[1], dim=1, norm="ortho")  # (2): [B, L, d]
        if last_place_only:
            states, filtered = states[:, -1:], filtered[:, -1:]
        states = self.filter_norm(states + self.dropout(filtered))  # (3)
        return self.network_norm(states + self.dropout(self.network(states)))  # (4)


def latest(items: Tensor, lengths: Tensor, count: int) -> Tensor:
    """The last ``count`` items of each history, padded on the left with 0.

    Args:
        items: ``[B, T]``, padded on the right.
        lengths: ``[B]``, how many items each row has.
        count: L, which may be below or above T.

    Returns:
        ``[B, L]``.
    """
    places = torch.arange(count, device=items.device) - count + lengths.unsqueeze(1)  # [B, L]: negative is padding
    return items.gather(1, places.clamp(min=0)) * (places >= 0)


def initialise_normal(module: nn.Module) -> None:
    """Normal weights, zero biases and a zero padding row; for ``module.apply``."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=SPREAD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])
