"""The settings of the texts of items and users, which models read as vectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from recbole_ser.settings.declaration import Settings, setting


class TextsSettings(Settings):
    """The block ``texts``."""

    vectors: str | dict[str, Any] = setting("back-end that makes vectors of texts, or {backend: name, option: value}")
    items: str | dict[str, Any] = setting(
        "text of an item: its attributes, or what a language model says of it, as {backend: openai, ...}"
    )
    users: str | dict[str, Any] = setting(
        "text of a user: a back-end that summarises the training history, or {backend: name, ...}; mean: no text, but "
        "the mean of the vectors of the history's texts"
    )
    side: Literal["rec", "search", "both"] = setting("which history of a user is read")
    factors: list[Annotated[str, Field(min_length=1)]] = setting(
        "what language models are asked to go through, such as [genre, mood]"
    )
    max_records: Annotated[int, Field(ge=1, le=10_000)] = setting(
        "latest searches, and latest interactions, of the training period that are read"
    )
    max_clicks: Annotated[int, Field(ge=1, le=1_000)] = setting("first clicked items of each of these searches")
    until: Annotated[float, Field(gt=0, le=1)] = setting(
        "the share of each user's events of the training period, from the first one on, that is read; 1: all, so that "
        "in training the texts know their user's later targets"
    )
