"""The experts' products that are timed: what they compute, and which device and library can."""

import numpy as np
import pytest
import torch

from bench.alltoall.experts import ends_of, grouped_mlp
from bench.alltoall.net import Net
from bench.experts.gemm import Products, Shape, Timing
from bench.experts.kernels import KERNELS, ProductType, check_kind, library_of
from placement.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_timed_products_are_the_experts_mlp(kind: ProductType, tolerance: float) -> None:
    kernels = KERNELS["torch", kind](3, 32, 16, 2, CPU, seed=1)
    count = torch.tensor([4, 0, 5])
    x = kernels.states(9)
    up, down = kernels._weights[1]
    found = kernels.run(x, count)(1)
    expected = grouped_mlp(x.float(), up.float(), down.float(), ends_of(count))
    assert isinstance(found, torch.Tensor)
    assert found.dtype == x.dtype
    assert float((found.float() - expected).norm() / expected.norm()) < tolerance
    assert not torch.equal(up, kernels._weights[0][0])


def test_random_states_fill_the_type() -> None:
    # Small values would be fp8's subnormals, on which the units draw less power and run faster.
    for kind in ("fp32", "bf16"):
        assert float(KERNELS["torch", kind](1, 64, 16, 1, CPU, seed=0).states(500).float().std()) == pytest.approx(
            1, abs=0.05
        )


def test_no_tokens_take_no_time() -> None:
    products = Products(Shape(32, 16, 2), "torch", "fp32", CPU, 4, seed=0)
    assert products.sets >= 2
    assert products.timed(np.array([0, 0]), 1, 3).median_s == 0
    assert products.timed(np.array([1, 3]), 1, 3).median_s > 0


def test_a_timing_is_its_median_and_half_its_quartiles() -> None:
    found = Timing(np.array([1.0, 2.0, 3.0, 4.0, 50.0]))
    assert found.median_s == 3
    assert found.spread == pytest.approx((4 - 2) / 2 / 3)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("fp8", "needs a GPU of compute capability 9 or 10"), ("mxfp4", "needs a GPU of compute capability 9; use bf16")],
)
def test_a_type_without_kernels_is_told(kind: ProductType, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_kind(library_of(kind), kind, CPU)


def test_every_type_has_a_library() -> None:
    assert {kind: library_of(kind) for kind in ("bf16", "fp8", "fp32", "mxfp4")} == {
        "bf16": "torch", "fp8": "torch", "fp32": "torch", "mxfp4": "triton",
    }  # fmt: skip


@pytest.mark.parametrize(("world", "called"), [(1, 1), (4, 0)])
def test_a_job_of_one_rank_uses_its_backend(world: int, called: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def exchange(out: torch.Tensor, rows: torch.Tensor, *_: object, group: object) -> None:
        calls.append(group)
        out.copy_(rows)

    monkeypatch.setattr("torch.distributed.get_world_size", lambda: world)
    monkeypatch.setattr("torch.distributed.all_to_all_single", exchange)
    rows, one = torch.randn(3, 2), np.array([3])
    assert torch.equal(Net((0,), CPU).all_to_all(rows, one, one, "dispatch"), rows)
    assert len(calls) == called
