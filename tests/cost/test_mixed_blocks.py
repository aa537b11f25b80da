"""Models of several kinds of block, end to end: what a sequence leaves behind, and layers with experts of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from placement.cost.memory.activations import routed_width
from placement.cost.memory.hbm import MemoryModel, memory_of
from placement.cost.pose import layer_problems
from placement.cost.step.roles import kv_bytes_per_request
from placement.errors import InputError
from placement.problem.data import LayerData
from placement.problem.split import make_split
from specs.cluster import Gpu, OtherNodes
from specs.model import Model
from specs.parameters import count_parameters
from tests.cost import scenarios as s
from tests.specs.blocks import oracle

WIDE = {"kind": "moe", "experts": 8, "top_k": 2, "expert_width": 64}


def model(mixers: dict[str, Any], ffns: dict[str, Any], blocks: list[tuple[str | None, str]], **changes: Any) -> Model:
    fields = {
        "name": "mixed",
        "hidden": 64,
        "vocabulary": 512,
        "mixers": mixers,
        "ffns": ffns,
        "blocks": [{"blocks": [{"mixer": mixer, "ffn": ffn} for mixer, ffn in blocks]}],
    }
    return Model.model_validate(fields | changes)


def hybrid() -> Model:
    """Three linear layers to one of attention, twice; then a window, a latent with an indexer, and a layer without."""
    mixers = {
        "linear": {"kind": "gated_delta", "key_heads": 4, "value_heads": 8, "key_dim": 16, "value_dim": 8},
        "full": {"kind": "gqa", "query_heads": 8, "kv_heads": 2, "head_dim": 16},
        "near": {"kind": "gqa", "query_heads": 8, "kv_heads": 2, "head_dim": 16, "window": 100},
        "latent": {
            "kind": "mla", "heads": 8, "kv_rank": 32, "rope_dim": 8, "nope_dim": 16, "value_dim": 16, "q_rank": 16,
            "indexer": {"heads": 2, "head_dim": 16, "top_k": 64},
        },
        "squeezed": {
            "kind": "compressed", "heads": 8, "head_dim": 16, "q_rank": 16, "output_groups": 4, "output_rank": 8,
            "window": 100, "ratio": 7,
        },
    }  # fmt: skip
    period = [("linear", "moe")] * 3 + [("full", "moe")]
    blocks = [*period, *period, ("near", "moe"), ("latent", "moe"), ("squeezed", "moe"), (None, "moe")]
    return model(mixers, {"moe": WIDE}, blocks, types={"kv_cache": "fp8", "state": "fp32"})


def kept(tokens: int, tp: int) -> int:
    """Bytes of a sequence on a GPU: 8-bit caches, 16-bit rotary parts beside an indexer and inputs, 32-bit states."""
    linear = 8 // tp * 16 * 8 * 4 + 3 * ((2 * 4 * 16 + 8 * 8) // tp) * 2
    heads = oracle.kv_heads_of_a_gpu(8, 2, tp)
    total = 6 * linear + 2 * tokens * heads * 32 + oracle.windowed(tokens, 100) * heads * 32
    total += tokens * (32 + 4 + 8 * 2) + tokens * (16 + 4)
    return total + (oracle.windowed(tokens, 100) + oracle.compressed(tokens, 7)) * 16 + 2 * 4 * 7 * 16


@pytest.mark.parametrize(("tp", "dp"), [(1, 8), (2, 4), (4, 2)])
def test_the_kv_line_is_what_a_sequence_leaves_in_every_layer(tp: int, dp: int) -> None:
    case = s.scenario(hybrid(), workload=s.serving(isl=200, osl=55))
    split = make_split(case, tp=tp, ep=8, pp=1, dp=dp, batch=3)
    assert memory_of(case, split).line("KV cache") == 3 * kept(255, tp)


def test_the_kv_line_of_stages_is_of_the_fullest() -> None:
    case = s.scenario(hybrid(), workload=s.serving(isl=200, osl=55))
    split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=3)
    # Six layers, of which five keep states, and the six that are left.
    linear = 8 * 16 * 8 * 4 + 3 * (2 * 4 * 16 + 8 * 8) * 2
    first = 5 * linear + 255 * 2 * 32
    memory = MemoryModel(case, split)
    stage = memory.report().stage
    assert memory.report().line("KV cache") == 3 * (first, kept(255, 1) - first)[stage]


def test_a_prompt_moves_what_it_leaves_in_every_layer() -> None:
    case = s.scenario(hybrid(), workload=s.serving(isl=200, osl=55))
    assert kv_bytes_per_request(case) == kept(200, 1)


def uneven(few: int = 4, ffns: dict[str, Any] | None = None) -> Model:
    """Two layers of eight experts, two of fewer that are wider."""
    mixer = {"kind": "gqa", "query_heads": 8, "kv_heads": 2, "head_dim": 8}
    ffns = ffns or {"wide": WIDE, "other": WIDE | {"experts": few, "expert_width": 256}}
    return model({"full": mixer}, ffns, [("full", "wide"), ("full", "other")] * 2)


def statistics(of: Model) -> list[LayerData]:
    """Even loads, padded to the most experts as recordings are."""
    most = of.moe.experts
    loads = [[2 / moe.experts] * moe.experts + [0.0] * (most - moe.experts) for moe in of.moes]
    return [LayerData(np.array([load])) for load in loads]


def test_layers_count_their_own_experts() -> None:
    wide, other = count_parameters(uneven()).blocks
    assert (wide.experts, wide.expert, wide.router) == (8, 3 * 64 * 64, 8 * 64)
    assert (other.experts, other.expert, other.router) == (4, 3 * 64 * 256, 4 * 64)
    attention = 64 * (64 + 2 * 16) + 64 * 64
    expected = 2 * (8 * 3 * 64 * 64 + 8 * 64) + 2 * (4 * 3 * 64 * 256 + 4 * 64)
    assert count_parameters(uneven()).total == expected + 4 * (attention + 2 * 64) + 64 + 2 * 512 * 64


@pytest.mark.parametrize(("ep", "redundant", "slots"), [(4, 0, (2, 1)), (4, 4, (3, 2)), (8, 0, (1, 1)), (8, 8, (2, 2))])
def test_layers_have_slots_and_prices_of_their_own(ep: int, redundant: int, slots: tuple[int, int]) -> None:
    case = s.scenario(uneven())
    split = make_split(case, tp=1, ep=ep, pp=1, dp=ep, batch=4, redundant=redundant)
    posed = layer_problems(case, split, "serving", statistics(case.model))
    assert [(each.experts, each.hardware.slots_per_gpu) for each in posed] == [(8, slots[0]), (4, slots[1])] * 2
    wide, other = posed[0].hardware.rates, posed[1].hardware.rates
    assert other.weight_s == pytest.approx(4 * wide.weight_s)
    assert other.token_s == pytest.approx(4 * wide.token_s)
    held = 2 * (slots[0] * 3 * 64 * 64 + slots[1] * 3 * 64 * 256) * 2
    assert memory_of(case, split).line("expert weights") == held


def test_redundant_experts_fit_the_layer_of_the_fewest() -> None:
    case = s.scenario(uneven(few=2))
    # (2 + 8) / 4 slots of a GPU would be three, for two experts.
    with pytest.raises(InputError, match=r"two copies of an expert on one GPU.*use 4 redundant"):
        make_split(case, tp=1, ep=4, pp=1, dp=4, batch=4, redundant=8)
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=4, redundant=4)
    assert [each.hardware.slots_per_gpu for each in layer_problems(case, split, "serving", statistics(case.model))] == [
        3, 2, 3, 2,
    ]  # fmt: skip


def test_the_working_set_is_of_the_widest_experts() -> None:
    for few in (4, 8):
        case = s.scenario(uneven(few))
        split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=4)
        assert routed_width(case.model, split) == 2 * (2 * 64 + 3 * 256)


def test_buffers_hold_the_widest_message() -> None:
    other = {"kind": "moe", "experts": 4, "top_k": 2, "expert_width": 64}
    latent = model(
        {"full": {"kind": "gqa", "query_heads": 8, "kv_heads": 2, "head_dim": 8}},
        {"latent": WIDE | {"latent": 16}, "other": other},
        [("full", "latent"), ("full", "other")],
    )
    whole, mixed = (
        memory_of(case, make_split(case, tp=1, ep=4, pp=1, dp=4, batch=4)).line("communication buffers")
        for case in (s.scenario(uneven()), s.scenario(latent))
    )
    assert whole == mixed


def test_a_faster_node_is_faster_by_a_layers_own_slots() -> None:
    """More bandwidth, the same peak: it counts as far as the tokens of a slot are few."""
    fast = Gpu(name="wide", hbm_gib=160.0, hbm_gb_per_s=8000.0, peak_tflops=s.PEAKS)
    cluster = s.cluster().model_copy(update={"other_nodes": (OtherNodes(nodes=1, gpu=fast),)})
    many = uneven(ffns={"wide": WIDE | {"experts": 16}, "other": WIDE | {"experts": 4}})
    case = s.scenario(many, cluster=cluster)
    split = make_split(case, tp=1, ep=8, pp=1, dp=8, batch=150)
    speeds = []
    for posed, slots in zip(layer_problems(case, split, "decode", statistics(many)), (2, 1, 2, 1), strict=True):
        rates, tokens = posed.hardware.rates, 150 * 2 / slots
        slow = max((1 - math.exp(-tokens)) * rates.weight_s, tokens * rates.token_s)
        quick = max((1 - math.exp(-tokens)) * rates.weight_s / 2, tokens * rates.token_s)
        speeds.append(slow / quick)
        assert posed.hardware.speed is None or posed.hardware.speed == pytest.approx([1.0] * 4 + [slow / quick] * 4)
        assert (posed.hardware.speed is None) == (slow == quick)
    assert speeds[0] > speeds[1] >= 1
