"""Settings: every key that a configuration may have, with its type, its range and one line on what it means.

A model of your own declares its settings like ours do:

    from recbole_ser.settings import ModelSettings, Width, setting

    class MyModel(SearchRecommender):
        class Settings(ModelSettings):
            embedding_size: Width = setting("of items and queries", default=32)
"""

from recbole_ser.settings.declaration import Settings, setting
from recbole_ser.settings.model import ModelSettings
from recbole_ser.settings.types import (
    Count,
    Positive,
    Probability,
    Share,
    StartTemperature,
    Weight,
    Width,
    Widths,
)

__all__ = [
    "Count", "ModelSettings", "Positive", "Probability", "Settings", "Share", "StartTemperature", "Weight", "Width",
    "Widths", "setting",
]  # fmt: skip
