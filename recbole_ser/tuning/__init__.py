"""Sweeps over a model's settings with Ray Tune.  Ray is imported where a sweep starts, not here."""

from recbole_ser.tuning.sweep import SweepResult, resume, tune

__all__ = ["SweepResult", "resume", "tune"]
