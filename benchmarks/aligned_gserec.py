"""GSERec with SESRec's alignment of queries and clicked items, to find out what the alignment is worth.

PYTHONPATH=benchmarks recbole-ser study benchmarks/aligned_gserec.yaml
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from recbole_ser.model.alignment import QueryItemAlignment
from recbole_ser.model.embeddings import Mentions
from recbole_ser.model.search_aware import gserec
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.types import Count, StartTemperature, Weight


class GSERec(gserec.GSERec):
    """GSERec whose loss has alpha times SESRec's Eq. 8, too, with SESRec's settings for it as defaults.

    It is called like GSERec so that it reads its YAML file.
    """

    class Settings(gserec.GSERec.Settings):
        alpha: Weight = setting("weight of the query-item alignment", default=0.1)
        alignment_negatives: Count = setting("items, and as many queries, drawn for each batch", default=1024)
        temperature: StartTemperature = setting("of the alignment, where it starts", default=0.1)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        own = self.Settings.of(config)
        self.alpha = own.alpha
        searches = dataset.training_search_queries
        self.alignment = QueryItemAlignment(own.hidden_size, own.alignment_negatives, own.temperature, searches)

    def draw_mentions(self, interaction: Any) -> list[Mentions]:
        return [self.alignment.draw(self.items.count)]

    def auxiliary_losses(self, interaction: Any, state: gserec.UserState) -> dict[str, Tensor]:
        losses = super().auxiliary_losses(interaction, state)
        return {**losses, "alignment": self.alignment(interaction, self.items, self.queries)}

    def loss_weights(self) -> dict[str, float]:
        return {**super().loss_weights(), "alignment": self.alpha}
