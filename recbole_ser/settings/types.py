"""The types of settings: what a value may be.

The upper limits are far above any sensible value.  They are there to turn a slip, such as a width of 10**9, into a
message instead of a machine without memory.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Width = Annotated[int, Field(ge=1, le=16_384)]  # of a vector
Widths = Annotated[list[Width], Field(min_length=1, max_length=16)]  # of the hidden layers of a network
Layers = Annotated[int, Field(ge=1, le=64)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Length = Annotated[int, Field(ge=1, le=10_000)]  # of a history
Probability = Annotated[float, Field(ge=0, lt=1)]  # of leaving something out
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1_000_000)]  # of a term of the loss
Positive = Annotated[float, Field(gt=0, le=1_000)]

LossType = Literal["BCE", "BPR", "CE"]  # of the next item

LOWEST_TEMPERATURE = 0.01  # a learnt temperature stays above it
StartTemperature = Annotated[float, Field(gt=LOWEST_TEMPERATURE, le=1_000)]
