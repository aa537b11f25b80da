"""Plans of models whose layers differ: in mixers, in experts, in what an expert works on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from placement.records.plan import load_plan
from tests.cli.conftest import Done

QUICK = ("--strategy", "search", "--work", "0.05", "--workers", "1")
#: Two sizes of experts, and layers that have a mixer alone.
MIXED: dict[str, Any] = {
    "name": "mixed", "hidden": 64, "vocabulary": 256,
    "mixers": {
        "full": {"kind": "gqa", "query_heads": 4, "kv_heads": 2, "head_dim": 16},
        "linear": {"kind": "gated_delta", "key_heads": 4, "value_heads": 4, "key_dim": 16, "value_dim": 16},
    },
    "ffns": {
        "wide": {"kind": "moe", "experts": 16, "top_k": 2, "expert_width": 32},
        "narrow": {"kind": "moe", "experts": 6, "top_k": 2, "expert_width": 64, "latent": 32},
    },
    "blocks": [{"repeat": 2, "blocks": [
        {"mixer": "full", "ffn": "wide"}, {"mixer": "linear"}, {"mixer": "linear", "ffn": "narrow"},
    ]}],
}  # fmt: skip


@pytest.fixture
def spec(tiny: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "mixed.yaml"
    path.write_text(yaml.safe_dump({**tiny, "model": MIXED}))
    return str(path)


@pytest.mark.parametrize("dispatch", ["even", "planned"])
def test_each_layer_has_its_own_experts_and_slots(
    call: Callable[..., Done], spec: str, dispatch: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "plan.json")
    done = call("solve", "--spec", spec, *QUICK, "--dispatch", dispatch, "--out", out)
    assert done.code == 0, done.err
    layers = load_plan(out).role().layers
    # (16 + 4) / 4 and, rounded up, (6 + 4) / 4 slots on each of 4 GPUs.
    assert [(layer.layer, len(layer.physical_to_logical)) for layer in layers] == [(0, 20), (2, 12), (3, 20), (5, 12)]
    assert [max(layer.physical_to_logical) for layer in layers] == [15, 5, 15, 5]
    assert call("verify", out).code == 0


def test_a_placement_of_another_layers_size_is_refused(call: Callable[..., Done], spec: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    assert call("solve", "--spec", spec, *QUICK, "--out", str(out)).code == 0
    plan = json.loads(out.read_text())
    plan["roles"][0]["layers"][1]["physical_to_logical"] = plan["roles"][0]["layers"][0]["physical_to_logical"]
    out.write_text(json.dumps(plan))
    done = call("verify", str(out))
    assert (done.code, "20 slots, not 12" in done.err) == (2, True)


def test_a_running_plan_migrates_on_load_counts_of_its_layers(
    call: Callable[..., Done], spec: str, tmp_path: Path
) -> None:
    import numpy as np

    out, counts = str(tmp_path / "plan.json"), np.zeros((2, 4, 16))
    assert call("solve", "--spec", spec, *QUICK, "--out", out).code == 0
    for layer, experts in enumerate((16, 6, 16, 6)):
        counts[:, layer, :experts] = np.arange(1, experts + 1)
    np.savez(tmp_path / "new.npz", counts=counts)
    done = call("migrate", "--plan", out, "--trace", str(tmp_path / "new.npz"), "--max-moves", "4")
    assert done.code == 0, done.err
    counts[:, 1, 6] = 1
    np.savez(tmp_path / "wrong.npz", counts=counts)
    done = call("migrate", "--plan", out, "--trace", str(tmp_path / "wrong.npz"), "--max-moves", "4")
    assert (done.code, "beyond the layer's 6" in done.err) == (2, True)


def as_first_version(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan of one role as `placement.plan/1` wrote it."""
    (role,) = plan.pop("roles")
    for name in ("mode", "predicted", "choice"):
        del plan[name]
    plan.pop("witness", None)
    for name in ("binds", "stake", "served"):
        role.pop(name, None)
    del role["posed_batch"], role["role"], role["cp"]
    plan["engine"]["messages"] = role.pop("messages")
    for row in role["strategies"]:
        del row["at_own_batch"]
    return {**plan, **role, "schema": "placement.plan/1"}


def test_a_plan_that_names_no_engine_is_read_as_its_scenario_says(
    call: Callable[..., Done], spec: str, tmp_path: Path
) -> None:
    out = tmp_path / "plan.json"
    assert call("solve", "--spec", spec, *QUICK, "--out", str(out)).code == 0
    plan = as_first_version(json.loads(out.read_text()))
    del plan["engine"], plan["scenario"]["spec"]["engine"]
    out.write_text(json.dumps(plan))
    assert call("verify", str(out)).code == 0
    assert load_plan(out).engine.name == "generic"
    assert load_plan(out).role().messages == {"decode": "per_node", "prefill": "per_node"}


def test_stages_hold_whole_layers_of_several_blocks(
    call: Callable[..., Done], tiny: dict[str, Any], tmp_path: Path
) -> None:
    shortcut = {**MIXED, "ffns": {"wide": MIXED["ffns"]["wide"], "flat": {"kind": "dense", "width": 128}}}
    shortcut["mixers"] = {"full": MIXED["mixers"]["full"]}
    pair = [{"mixer": "full", "ffn": "wide"}, {"mixer": "full", "ffn": "flat"}]
    shortcut |= {"blocks": [{"repeat": 3, "blocks": pair}], "blocks_per_layer": 2}
    pins = {"tp": 1, "ep": 2, "pp": 2, "dp": 2, "batch": 8}
    path, out = tmp_path / "shortcut.yaml", str(tmp_path / "plan.json")
    path.write_text(yaml.safe_dump({**tiny, "model": shortcut, "pins": pins}))
    done = call("solve", "--spec", str(path), *QUICK, "--out", out)
    assert done.code == 0, done.err
    plan = load_plan(out)
    assert [layer.layer for layer in plan.role().layers] == [0, 1, 2]
    assert [(stage.first_layer, stage.layers) for stage in plan.role().stages] == [(0, 2), (2, 1)]
    assert call("verify", out).code == 0
    done = call("solve", "--spec", str(path), *QUICK, "--pp", "4", "--set", "pins.dp=1", "--set", "pins.ep=1")
    assert (done.code, "pp 4 is more than the model's 3 layers" in done.err) == (2, True)
