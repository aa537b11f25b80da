"""Whatever a spec file holds, reading it gives a valid spec or one InputError of one printable line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from specs.errors import InputError
from specs.loading import load_model, load_scenario
from specs.model import Model
from specs.parameters import count_parameters
from tests.specs.mutations import config_files, scenario_files

SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


def _check_message(error: InputError, name: str) -> None:
    message = str(error)
    assert message.isprintable()
    assert len(message) < 2_000
    assert message.isascii() or message.encode("utf-8")
    assert name in message
    assert error.problem
    assert error.mend


def _check_model(model: Model) -> None:
    counts = count_parameters(model)
    assert 0 < counts.active <= counts.total + counts.head_product
    assert counts.total < 10**17
    assert math.isfinite(float(counts.total))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, int]:
    return {"valid": 0, "refused": 0}


@settings(SETTINGS, max_examples=250)
@given(data=scenario_files())
def test_a_damaged_scenario_is_read_or_refused_in_one_line(
    data: bytes, tmp_path_factory: pytest.TempPathFactory, outcomes: dict[str, int]
) -> None:
    path = _write(tmp_path_factory, "damaged.yaml", data)
    try:
        scenario = load_scenario(str(path))
    except InputError as error:
        outcomes["refused"] += 1
        # A name inside the scenario may lead to another file, which the message then names.
        _check_message(error, "damaged.yaml" if error.source == str(path) else error.source)
    else:
        outcomes["valid"] += 1
        _check_model(scenario.model)


def test_the_damage_was_neither_trivial_nor_absent(outcomes: dict[str, int]) -> None:
    if sum(outcomes.values()) == 0:
        pytest.skip("the property test above was not run")
    assert outcomes["refused"] > 100
    assert outcomes["valid"] > 10


@settings(SETTINGS, max_examples=250)
@given(data=config_files())
def test_a_damaged_config_is_read_or_refused_in_one_line(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = _write(tmp_path_factory, "damaged.json", data)
    try:
        model = load_model(str(path))
    except InputError as error:
        _check_message(error, "damaged.json")
    else:
        _check_model(model)


def _write(factory: pytest.TempPathFactory, name: str, data: bytes) -> Path:
    path = factory.getbasetemp() / name
    path.write_bytes(data)
    return path
