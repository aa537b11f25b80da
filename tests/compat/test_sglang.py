"""The plug-in inside SGLang: SGLang's own plug-in loader, hooks and algorithms run from its wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from placement.records.plan import load_plan
from tests.compat.conftest import Inside

#: Three layers, of which the first is dense: SGLang counts it, and nothing is ever routed in it.
LOADS = [[0] * 8, [90, 10, 10, 10, 40, 5, 5, 5], [5, 80, 60, 5, 5, 5, 20, 20]]


def busiest(rows: list[list[int]]) -> list[float]:
    """[MoE layers] load of the busiest of 4 GPUs."""
    return [
        max(np.array([load[e] / row.count(e) for e in row]).reshape(4, -1).sum(axis=1))
        for load, row in zip(LOADS[1:], rows[1:], strict=True)
    ]


def asked(**algorithms: int | None) -> dict[str, Any]:
    """A question to SGLang's balancer under each of these algorithms, with as many groups of experts."""
    return {"loads": LOADS, "slots": 12, "gpus": 4, "algorithms": algorithms}


def test_maps_by_load_in_the_form_sglang_takes_and_its_own_after_an_error(inside: Inside, sglang_wheel: Path) -> None:
    algorithms = asked(auto=4, deepseek=None, deepseek_vec=None)
    by_algorithm, log = inside("inside_sglang.py", sglang_wheel, algorithms, PLACEMENT_EPLB="1")
    assert "Applied 1 hook(s)" in log
    for told in by_algorithm.values():
        rows, places, copies = told["first"]
        assert rows != told["own"][0]
        assert all(a <= b for a, b in zip(busiest(rows), busiest(told["own"][0]), strict=True))
        for row, place, count in zip(rows, places, copies, strict=True):
            assert count == [row.count(expert) for expert in range(8)]
            for expert, slots in enumerate(place):
                assert [slot for slot in slots if slot >= 0] == [s for s, e in enumerate(row) if e == expert]
        # The map in use is known: nothing moves where nothing changed.
        assert told["second"] == told["first"]
        assert told["after_error"] == told["own"]


def test_the_plans_map_comes_first_with_the_dense_layer(inside: Inside, sglang_wheel: Path, folder: Path) -> None:
    plan = folder / "recorded.json"
    by_algorithm, _ = inside(
        "inside_sglang.py", sglang_wheel, asked(auto=None), PLACEMENT_EPLB="1", PLACEMENT_PLAN=str(plan)
    )
    told = by_algorithm["auto"]
    rows = told["first"][0]
    assert rows[1:] == [list(layer.physical_to_logical) for layer in load_plan(plan).roles[0].layers]
    assert rows[0] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    assert told["second"] != told["first"]
