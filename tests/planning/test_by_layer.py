"""Redundant experts by layer: solved, written, verified, exported where an engine can, refused where not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from placement import load_plan, verify_plan
from placement.cost.memory.hbm import MemoryModel
from placement.engines.launch.site import layers_of, map_of
from placement.engines.maps.registry import read_map
from placement.errors import InputError
from placement.planning.by_layer import shared_by_layer
from placement.problem.split import Split, make_split
from placement.records.plan import plan_from_json, plan_json
from tests.cli.conftest import TINY, Done
from tests.cli.conftest import call as call
from tests.engines import plans


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml and a trace: the first layer's expert 0 is hot, the second layer is even."""
    path = tmp_path_factory.mktemp("by_layer")
    (path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    rng = np.random.default_rng(3)
    heat = np.array([[0.0, *[1.0] * 7], [1.0] * 8])
    ids = np.argsort(rng.random((2, 240, 8)) ** 1.5 * heat[:, None, :], axis=2)[:, :, :2].astype(np.uint8)
    ids[0, ::4] = np.argsort(rng.random((60, 7)), axis=1)[:, :2] + 1
    np.savez_compressed(path / "skewed.npz", topk_ids=ids, seq_lens=np.full(8, 30))
    return path


def _solve(call: Callable[..., Done], folder: Path, out: str, *more: str) -> Done:
    given = ("--trace", str(folder / "skewed.npz"), "--objective", "load", "--strategy", "search", "--work", "0.1")
    return call("solve", "--spec", str(folder / "tiny.yaml"), *given, "--out", str(folder / out), *more)


@pytest.fixture
def by_layer(call: Callable[..., Done], skewed: Path) -> Path:
    """A plan of 8 experts on 4 GPUs, whose two layers share 2 x 4 redundant ones."""
    path = skewed / "by_layer.json"
    if not path.exists():
        done = _solve(call, skewed, path.name, "--redundant-by-layer")
        assert done.code == 0, done.err
        assert "8 + 0 to 8 redundant by layer, which share 4 each" in " ".join(done.out.split())
    return path


def test_slots_go_where_they_gain_and_the_plan_is_no_worse_than_an_even_one(
    call: Callable[..., Done], skewed: Path, by_layer: Path
) -> None:
    assert _solve(call, skewed, "even.json", "-q").code == 0
    even, own = load_plan(skewed / "even.json"), load_plan(by_layer)
    assert own.role().split.layer_redundant == (8, 0)
    assert own.role().widths(own.scenario.spec) == (4, 2)
    assert own.role().certificate.objective < even.role().certificate.objective
    assert sum(len(layer.physical_to_logical) for layer in own.role().layers) == 24
    assert own.role().memory.lines[4] == even.role().memory.lines[4]
    assert "layer_redundant" not in (skewed / "even.json").read_text()
    assert plan_json(plan_from_json(by_layer.read_text(), "by_layer.json")) == by_layer.read_text()


def test_it_is_verified_evaluated_and_migrated_as_any_other(
    call: Callable[..., Done], skewed: Path, by_layer: Path
) -> None:
    trace = ("--trace", str(skewed / "skewed.npz"))
    done = call("verify", str(by_layer), *trace)
    assert done.code == 0, done.out
    assert call("evaluate", "--plan", str(by_layer), *trace).code == 0
    for more in (("--max-moves", "1"), ("--to-gpus", "2"), ("--failed-gpu", "3")):
        out = skewed / f"moved{more[0]}.json"
        budget = () if more[0] == "--max-moves" else ("--max-moves", "100")
        done = call("migrate", "--plan", str(by_layer), *trace, "--work", "0.05", *budget, *more, "--out", str(out))
        if more[0] == "--failed-gpu":
            # The second layer has no slot beyond one copy each.
            assert done.code == 3
            assert "3 GPUs left have 6 slots for 8 experts, 2 too few" in done.err
            continue
        assert done.code == 0, done.err
        moved = load_plan(out).role()
        assert moved.split.layer_redundant == {"--max-moves": (8, 0), "--to-gpus": None}[more[0]]
        done = call("verify", str(out), *trace)
        assert done.code == 0, done.out


@pytest.mark.parametrize(
    ("wrong", "told"),
    [((4, 4), "4 redundant experts in 16 slots"), ((8, 4), "in 8 slots"), ((8,), "not one number a layer")],
)
def test_verify_finds_a_wrong_width(by_layer: Path, wrong: tuple[int, ...], told: str) -> None:
    plan = load_plan(by_layer)
    (role,) = plan.roles
    split = role.split.model_copy(update={"layer_redundant": wrong})
    other = plan.model_copy(update={"roles": (role.model_copy(update={"split": split}),)})
    (found,) = [check for check in verify_plan(other) if check.name == "split"]
    assert found.passed is False
    assert told in found.detail


def test_verify_finds_more_slots_than_even_layers_have(by_layer: Path) -> None:
    plan = load_plan(by_layer)
    (role,) = plan.roles
    rows = (role.layers[0], role.layers[1].model_copy(update={"physical_to_logical": (0, 1, 2, 3, 4, 5, 6, 7) * 2}))
    split = role.split.model_copy(update={"layer_redundant": (8, 8)})
    other = plan.model_copy(update={"roles": (role.model_copy(update={"split": split, "layers": rows}),)})
    (found,) = [check for check in verify_plan(other) if check.name == "split"]
    assert found.detail == "layers of stage 0 have 8 redundant experts too many"


@pytest.mark.parametrize("wrong", [[8], [8, 4], [8, 2], [40, 0], [8, -1], []])
def test_a_file_with_a_wrong_width_is_refused_in_one_line(by_layer: Path, wrong: list[int]) -> None:
    data = json.loads(by_layer.read_text())
    data["roles"][0]["split"]["layer_redundant"] = wrong
    with pytest.raises(InputError, match=r"wrong\.json") as error:
        plan_from_json(json.dumps(data), "wrong.json")
    assert "\n" not in str(error.value)


def test_omni_loads_it_and_others_are_refused(call: Callable[..., Done], skewed: Path, by_layer: Path) -> None:
    plan = load_plan(by_layer)
    done = call("export", "--plan", str(by_layer), "--to", "omni", "--out", str(skewed / "omni"))
    assert done.code == 0, done.err
    (file,) = (skewed / "omni").rglob("placement_pattern.npy")
    assert np.load(file).sum(axis=(0, 2)).tolist() == [16, 8]
    held = read_map(file, layers_of(plan.scenario.spec), 4).experts
    assert held.first_difference(map_of(plan.role(), plan.scenario.spec)) == ""
    assert call("export", "--plan", str(by_layer), "--check", str(file), "--to", "omni").code == 0
    current = ("evaluate", "--plan", str(by_layer), "--trace", str(skewed / "skewed.npz"), "--current", str(file))
    assert call(*current).code == 0
    for engine in ("sglang", "trtllm", "vllm", "vllm-record", "vllm-hygon", "vllm-ascend", "deepseek"):
        done = call("export", "--plan", str(by_layer), "--to", engine, "--out", str(skewed / engine))
        assert done.code == 2
        assert f"{engine} has the same number of redundant experts in each layer" in done.err
        assert "export it to omni" in done.err
        assert not (skewed / engine).exists()


def test_an_engine_that_can_not_have_it_is_not_planned_for(call: Callable[..., Done], skewed: Path) -> None:
    done = _solve(call, skewed, "never.json", "--redundant-by-layer", "--engine", "sglang")
    assert done.code == 2
    assert "sglang has the same number of redundant experts in each layer" in done.err
    assert done.err.count("\n") == 1


def test_memory_counts_the_slots_of_each_stage() -> None:
    case = plans.scenario(
        model={**copy.deepcopy(TINY["model"]), "layers": 5}, pins={"tp": 1, "ep": 2, "pp": 2, "dp": 2, "batch": 8}
    )
    even = make_split(case, 1, 2, 2, 2, 8)
    assert even.redundant == 4
    expert = 3 * 64 * 32 * 2

    def stored(split: Split) -> tuple[int, float]:
        report = MemoryModel(case, split).report(1)
        return report.stage, report.line("expert weights") / expert

    # The first stage holds layers 0 (dense), 1 and 2, and is the fuller one where experts are alike.
    assert stored(even) == (0, 12)
    assert stored(replace(even, layer_redundant=(8, 0, 4, 4))) == (0, 12)
    assert stored(replace(even, layer_redundant=(8, 4, 4, 4))) == (0, 14)
    assert stored(replace(even, layer_redundant=(0, 0, 8, 8))) == (1, 16)


def test_stages_do_not_share_with_each_other() -> None:
    case = plans.scenario(
        model={**copy.deepcopy(TINY["model"]), "layers": 5}, pins={"tp": 1, "ep": 2, "pp": 2, "dp": 2, "batch": 8}
    )
    even = make_split(case, 1, 2, 2, 2, 8)

    def costs(split: Split) -> list[float]:
        # Only layers of the first stage gain, the second twice as much as the first.
        return [gain / width for gain, width in zip((1.0, 2.0, 0.0, 0.0), split.widths(case.model), strict=True)]

    found = shared_by_layer(case, even, costs)
    assert found.layer_redundant is not None
    assert sum(found.layer_redundant[:2]) == 8
    assert found.layer_redundant[1] > found.layer_redundant[0]
    assert found.layer_redundant[2:] == (0, 0)
    assert shared_by_layer(case, even, lambda split: [abs(w - 6.0) for w in split.widths(case.model)]) is even


def test_a_split_with_slots_that_no_gpu_can_share_is_refused() -> None:
    split = make_split(plans.scenario(), 1, 4, 1, 4, 8)
    with pytest.raises(InputError, match="layer_redundant"):
        replace(split, layer_redundant=(6, 0))
