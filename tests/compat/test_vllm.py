"""The plug-in inside vLLM: vLLM's own plug-in loader, registry and EplbState run from its wheel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.compat.conftest import Inside

LOADS = [[90, 10, 10, 10, 40, 5, 5, 5], [5, 80, 60, 5, 5, 5, 20, 20]]
ASKED = {"loads": LOADS, "experts": 8, "slots": 12, "gpus": 4}


def plan_rows(plan: Path) -> list[list[int]]:
    (role,) = json.loads(plan.read_text())["roles"]
    return [layer["physical_to_logical"] for layer in role["layers"]]


def busiest(rows: list[list[int]], gpus: int) -> list[float]:
    """[layers] load of the busiest GPU, over the mean."""
    out = []
    for load, row in zip(LOADS, rows, strict=True):
        each = np.array([load[e] / row.count(e) for e in row]).reshape(gpus, -1).sum(axis=1)
        out.append(float(each.max() / each.mean()))
    return out


def complete(rows: list[list[int]]) -> bool:
    return all(set(row) == set(range(8)) for row in rows)


@pytest.fixture
def plan(folder: Path) -> Path:
    return folder / "recorded.json"


def test_the_plans_map_comes_first_then_maps_by_load_and_vllms_own_after_an_error(
    inside: Inside, vllm_wheel: Path, plan: Path
) -> None:
    told, log = inside("inside_vllm.py", vllm_wheel, ASKED, PLACEMENT_EPLB="1", PLACEMENT_PLAN=str(plan))
    assert told["ours"]
    assert told["a_policy"]
    assert told["name"] == "PlacementPolicy"
    assert "takes the place of the engine's balancer" in log
    # A profile run asks first, and commits nothing: the plan's map is not used up by it.
    assert told["profile"] == told["start"]
    assert told["first"] == plan_rows(plan)
    assert told["second"] != told["first"]
    assert complete(told["second"])
    assert max(busiest(told["second"], 4)) <= max(busiest(told["first"], 4))
    assert told["after_error"] == told["own"]
    assert np.array(told["grown"]).shape == (2, 16)
    assert np.array(told["shrunk"]).shape == (2, 9)
    assert complete(told["grown"])
    assert (told["dtype"], told["device"]) == ("torch.int64", "cpu")


def test_hold_keeps_the_plans_map(inside: Inside, vllm_wheel: Path, plan: Path) -> None:
    told, _ = inside("inside_vllm.py", vllm_wheel, ASKED, PLACEMENT_EPLB="hold", PLACEMENT_PLAN=str(plan))
    assert told["first"] == told["second"] == plan_rows(plan)
    assert told["after_error"] == plan_rows(plan)  # nothing is balanced, so nothing fails
