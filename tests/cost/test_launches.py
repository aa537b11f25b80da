"""Kernels of a pass, counted."""

from __future__ import annotations

import pytest

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.step.launches import launches
from placement.cost.step.throughput import ServingModel
from placement.problem.split import make_split
from specs.loading import catalog_names, load_model
from specs.scenario import Scenario
from tests.cost import scenarios as s


def of(name: str) -> Scenario:
    return s.scenario().model_copy(update={"model": load_model(name)})


@pytest.mark.parametrize(
    ("name", "layers", "each"),
    [
        # Norm, q/k/v, rotary and cache, core, o; norm, router, top-k, permutation, 2 products, activation, sum.
        ("gpt_oss_120b", 36, 5 + 8),
        # Beside it the norms of queries and keys, and no quantization.
        ("qwen3_235b", 94, 6 + 8),
        # Every 8-bit product with the quantization of its input.
        ("minimax_m2_5", 62, 8 + 10),
    ],
)
def test_kernels_of_a_layer(name: str, layers: int, each: int) -> None:
    assert launches(of(name)) == layers * each


def test_latent_attention_and_shared_experts_launch_more() -> None:
    # Dense layers: norm, gate and up, activation, down, two quantizations.
    assert launches(of("deepseek_r1")) == 61 * 12 + 3 * 6 + 58 * (10 + 5)


@pytest.mark.parametrize("name", catalog_names("model"))
def test_every_model_launches_some_in_each_layer(name: str) -> None:
    case = of(name)
    assert 4 * case.model.layers <= launches(case) <= 40 * case.model.layers


def test_a_first_token_waits_for_them() -> None:
    case = s.scenario(workload=s.serving(isl=512, osl=64))
    constants = efficiency_of(case)
    model = ServingModel(case, s.serving(isl=512, osl=64), make_split(case, tp=1, ep=1, pp=1, dp=1, batch=1))
    launched = constants.first_token_launch_s.value * launches(case)
    assert model.first_token_s == pytest.approx(constants.first_token_s.value + launched)
