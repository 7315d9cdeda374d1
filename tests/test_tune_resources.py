"""With how much the trials of a sweep run, and on which cluster."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from recbole_ser.errors import ConfigError, UserError
from recbole_ser.tuning import engine
from recbole_ser.tuning.resources import Resources


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_by_default_this_machine_alone_with_a_cpu_for_each_trial() -> None:
    resources = Resources()
    assert (resources.address, resources.concurrent, resources.gpus_per_trial) == (None, None, None)
    assert resources.cpus_per_trial == 1


@pytest.mark.parametrize(
    "values",
    [
        {"concurrent": 1}, {"concurrent": 64}, {"cpus_per_trial": 1}, {"cpus_per_trial": 0.5}, {"cpus_per_trial": 4.0},
        {"cpus_per_trial": 0.001}, {"gpus_per_trial": 0}, {"gpus_per_trial": 0.25}, {"gpus_per_trial": 1.0},
        {"gpus_per_trial": 2},
    ],
)  # fmt: skip
def test_what_is_possible(values: dict[str, Any]) -> None:
    resources = Resources(**values)
    assert {key: getattr(resources, key) for key in values} == values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"concurrent": 0}, "concurrent is a whole number from 1 on, not 0"),
        ({"concurrent": -1}, "concurrent is a whole number from 1 on, not -1"),
        ({"concurrent": 1.5}, "concurrent is a whole number from 1 on, not 1.5"),
        ({"concurrent": "2"}, "concurrent is a whole number from 1 on, not 2"),
        ({"cpus_per_trial": 0}, "cpus_per_trial is a number above 0, not 0"),
        ({"cpus_per_trial": -1.0}, "cpus_per_trial is a number above 0, not -1.0"),
        ({"cpus_per_trial": "two"}, "cpus_per_trial is a number above 0, not two"),
        ({"cpus_per_trial": True}, "cpus_per_trial is a number above 0, not True"),
        ({"cpus_per_trial": None}, "cpus_per_trial is a number above 0, not None"),
        ({"cpus_per_trial": 1.5}, "cpus_per_trial: above 1 only whole numbers are possible, not 1.5"),
        ({"gpus_per_trial": -0.5}, "gpus_per_trial is a number from 0 on, not -0.5"),
        ({"gpus_per_trial": "all"}, "gpus_per_trial is a number from 0 on, not all"),
        ({"gpus_per_trial": False}, "gpus_per_trial is a number from 0 on, not False"),
        ({"gpus_per_trial": 2.5}, "gpus_per_trial: above 1 only whole numbers are possible, not 2.5"),
    ],
)
def test_what_is_not_possible_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Resources(**values)
    assert str(error.value) == said


def test_the_cluster_is_that_of_the_environment_unless_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Resources(address="auto").address == "auto"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert Resources().address == Resources(None).address == Resources("").address == "10.0.0.1:6379"
    assert Resources(address="ray://head:10001").address == "ray://head:10001"
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert Resources().address is None and Resources("").address is None


def test_resources_do_not_change() -> None:
    name: Any = "concurrent"
    with pytest.raises(FrozenInstanceError):
        setattr(Resources(), name, 3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"concurrent": True}, "concurrent is a whole number from 1 on, not True"),
        ({"cpus_per_trial": float("nan")}, "cpus_per_trial is a number above 0, not nan"),
        ({"gpus_per_trial": float("inf")}, "gpus_per_trial is a number from 0 on, not inf"),
        ({"address": 6379}, "address is written as host:port, not 6379"),
    ],
)
def test_what_is_no_number_at_all(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Resources(**values)
    assert str(error.value) == said


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(**arguments: Any) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(engine.ray, "init", busy)
    said = r"^Ray does not start or is not there \(local\): The current node timed out during startup\.$"
    with pytest.raises(UserError, match=said), engine.cluster(Resources()):
        pass
