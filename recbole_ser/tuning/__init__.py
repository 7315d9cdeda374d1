"""Sweeps over a model's settings with Ray Tune.  Ray is imported only when a sweep starts."""

from recbole_ser.tuning.sweep import SweepResult, resume, tune

__all__ = ["SweepResult", "resume", "tune"]
