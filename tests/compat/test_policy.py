"""The policy that runs inside engines, without an engine."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement.compat import sglang, vllm
from placement.compat.plan_maps import plan_maps
from placement.compat.policy import Asked, Policy, balanced, policy_of
from placement.problem.arrays import IntArray
from tests.cli.conftest import ROOT

torch = pytest.importorskip("torch")

LOADS = [[90, 10, 10, 10, 40, 5, 5, 5], [5, 80, 60, 5, 5, 5, 20, 20]]
LOG = logging.getLogger("placement.test")


def asked(old: Any = None, slots: int = 12, gpus: int = 4, loads: Any = LOADS) -> Asked:
    return Asked(
        torch.tensor(loads), slots, 1, 2 if gpus % 2 == 0 else 1, gpus, None if old is None else torch.tensor(old)
    )


def alone(found: IntArray | None) -> bool:
    return found is not None


@pytest.fixture
def plan(folder: Path) -> Path:
    return folder / "recorded.json"


class OwnBalancer:
    """vLLM's registry and policy class, rebuilt: as `distributed/eplb/policy` of 0.33.0 has them."""

    @classmethod
    def rebalance_experts(cls, weight: Any, replicas: int, groups: int, nodes: int, ranks: int, old: Any = None) -> Any:
        return torch.arange(replicas).repeat(len(weight), 1) % weight.shape[1]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """EPLB_POLICIES of a vLLM that holds nothing else."""
    policies = {"default": OwnBalancer}
    for name in ("vllm", "vllm.distributed", "vllm.distributed.eplb"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = types.ModuleType("vllm.distributed.eplb.policy")
    module.__dict__["EPLB_POLICIES"] = policies
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return policies


def test_vllms_default_is_ours_after_registering_and_its_own_after_an_error(
    registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLACEMENT_EPLB", "1")
    vllm.register()
    ours = registry["default"]
    assert issubclass(ours, OwnBalancer)
    vllm.register()
    assert registry["default"] is ours  # registering twice changes nothing
    sizes = (12, 1, 2, 4)
    found = ours.rebalance_experts(torch.tensor(LOADS), *sizes, torch.arange(12).repeat(2, 1) % 8)
    assert found.shape == (2, 12)
    assert found.dtype == torch.int64
    assert not torch.equal(found, OwnBalancer.rebalance_experts(torch.tensor(LOADS), *sizes))
    wrong = torch.tensor(LOADS) * float("nan")
    own = ours.rebalance_experts(wrong, *sizes)
    assert torch.equal(own, OwnBalancer.rebalance_experts(wrong, *sizes))
    assert "the engine's own balancer takes over" in caplog.text


@pytest.mark.parametrize("switch", [None, "", "0"])
def test_switched_off_nothing_is_registered_and_nothing_heavy_imported(switch: str | None) -> None:
    code = (
        "import sys; from placement.compat import vllm, sglang; vllm.register(); sglang.register();"
        "print(sorted({'numpy', 'numba', 'torch', 'pydantic', 'ortools', 'click'} & set(sys.modules)))"
    )
    environ = {"PYTHONPATH": str(ROOT)} | ({} if switch is None else {"PLACEMENT_EPLB": switch})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("environ", "words"),
    [({"PLACEMENT_EPLB": "yes"}, "set 1, hold or 0"), ({"PLACEMENT_EPLB": "hold"}, "needs PLACEMENT_PLAN")],
)
def test_a_wrong_setting_is_told_and_leaves_the_engine_alone(
    environ: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert policy_of(environ, alone, LOG) is None
    assert words in caplog.text


@pytest.mark.parametrize("register", [vllm.register, sglang.register])
def test_an_engine_of_another_version_is_left_alone(
    register: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLACEMENT_EPLB", "1")
    for name in ("vllm", "sglang"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))  # without the modules that are replaced
    register()
    assert "can't take the place" in caplog.text


def test_the_plans_map_is_served_until_it_is_in_force(plan: Path) -> None:
    planned = plan_maps(plan)[0].slots(2)
    policy = Policy(plan, False, alone, LOG)
    trivial = np.arange(12) % 8
    for old in (None, [trivial] * 2, [planned[0], trivial]):  # a profile run, a start, a move that was broken off
        found = policy.find(asked(None if old is None else np.array(old)))
        assert np.array_equal(found, planned)
    by_load = policy.find(asked(planned))
    assert not np.array_equal(by_load, planned)
    assert not np.array_equal(policy.find(asked(by_load)), planned)
    # An engine that shrinks and grows back has new ranks, which know of no plan that was served.
    assert policy.find(asked(by_load, 9, 3)).shape == (2, 9)
    assert np.array_equal(policy.find(asked(np.array([trivial] * 2))), planned)


def test_hold_serves_the_plan_for_ever(plan: Path) -> None:
    planned = plan_maps(plan)[0].slots(2)
    policy = Policy(plan, True, alone, LOG)
    for old in (None, planned, planned):
        assert np.array_equal(policy.find(asked(old)), planned)


def test_a_plan_of_other_sizes_is_told_once_and_load_decides(plan: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(plan, False, alone, LOG)
    for _ in range(2):
        found = policy.find(asked(slots=16, gpus=8))
        assert np.array_equal(found, balanced(asked(slots=16, gpus=8)))
    assert caplog.text.count("has no map of 2 layers with 16 slots on 8 GPUs: aggregated has 4 GPUs") == 1


def test_a_missing_plan_is_logged_and_none_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Policy(tmp_path / "none.json", False, alone, LOG).find(asked()) is None
    assert "none.json" in caplog.text


@pytest.mark.parametrize(("slots", "gpus"), [(12, 4), (16, 4), (24, 8), (8, 2), (9, 3)])
def test_old_maps_of_any_size_are_taken(slots: int, gpus: int) -> None:
    """GPUs that join are free; experts stay on the GPUs that were there, where that costs nothing."""
    old = np.array([np.arange(12) % 8] * 2)
    found = balanced(asked(old, slots, gpus))
    assert found.shape == (2, slots)
    assert all(set(row) == set(range(8)) for row in found.tolist())
    for unfit in (old[:1], np.full((2, slots), -1), np.array([[7] * slots] * 2)):
        assert balanced(asked(unfit, slots, gpus)).shape == (2, slots)


def test_layers_that_nobody_uses_are_placed() -> None:
    found = balanced(asked(loads=[[0] * 8, LOADS[0]]))
    assert set(found[0].tolist()) == set(range(8))


def test_sglangs_elastic_algorithms_stay_its_own() -> None:
    """They know which ranks are alive, and after a change of size one rank alone asks."""
    around = sglang.hook(Policy(None, False, alone, LOG))
    elastic = types.SimpleNamespace(name="elasticity_aware_hierarchical")
    loads = torch.tensor([LOADS])
    assert around(lambda **given: given, loads, 12, 3, 4, 2, elastic) == {
        "tokens_per_expert": loads, "num_physical_experts": 12, "num_local_physical_experts": 3, "num_groups": 4,
        "num_nodes": 2, "algorithm": elastic,
    }  # fmt: skip


def test_ranks_that_differ_all_fall_back() -> None:
    """Two processes compare their maps over gloo: the same is served, another or none at one of them is not."""
    script = """
import sys, torch, numpy as np
from placement.compat.policy import same_on_ranks
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
one, other = np.arange(6), np.arange(1, 7)
pairs = [(one, one), (one, other), (one, None), (None, one), (None, None)]
print([same_on_ranks(pair[rank], None) for pair in pairs], flush=True)
# A rank that leaves while the other still exchanges ends it.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(rank), f"{folder}/store"],
                stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)},
            )
            for rank in range(2)
        ]  # fmt: skip
        told = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    assert told == [str([True, False, False, False, False])] * 2
