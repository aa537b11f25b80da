"""Weights against tensor shapes written out by hand from modeling code (transformers 5.24, vLLM 0.33), and the shares
of tensor-parallel GPUs against heads dealt out to them."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from specs.blocks.attention import GqaAttention
from specs.blocks.base import Weight
from specs.blocks.ffn import DenseFfn, Moe
from specs.blocks.latent import MlaAttention
from specs.blocks.recurrent import KimiDelta, Lightning, Mamba, ShortConv
from specs.loading import load_model

#: A tensor's shape, and what is dealt out to GPUs of it: "any" (rows, columns or query heads: there are enough),
#: "whole" (every GPU has all), or so many heads or groups, of which several GPUs may have the same.
Shape = tuple[tuple[int, ...], Any]
ANY, WHOLE = "any", "whole"


def on_a_gpu(shapes: list[Shape], tp: int) -> float:
    """Elements on the first of tp GPUs."""
    total = 0.0
    for shape, dealt in shapes:
        if dealt == WHOLE:
            total += prod(shape)
        elif dealt == ANY:
            total += prod(shape) / tp
        else:
            mine = [head for head in range(dealt) if head * tp // dealt == 0]
            total += prod(shape) / dealt * max(1, len(mine))
    return total


def gqa(h: int, q: int, kv: int, d: int) -> list[Shape]:
    """Query, key, value and output projections."""
    return [((q * d, h), ANY), ((kv * d, h), kv), ((kv * d, h), kv), ((h, q * d), ANY)]


def mla(h: int, heads: int, q_rank: int, kv_rank: int, nope: int, rope: int, v: int) -> list[Shape]:
    queries: list[Shape] = [((heads * (nope + rope), h), ANY)]
    if q_rank:
        queries = [((q_rank, h), WHOLE), ((q_rank,), WHOLE), ((heads * (nope + rope), q_rank), ANY)]
    return [
        *queries,
        ((kv_rank + rope, h), WHOLE),
        ((kv_rank,), WHOLE),
        ((heads * (nope + v), kv_rank), ANY),
        ((h, heads * v), ANY),
    ]


def indexer(h: int, rank: int, heads: int, d: int) -> list[Shape]:
    """wq_b, wk, k_norm (weight and bias), weights_proj: ReplicatedLinear all."""
    return [((heads * d, rank), WHOLE), ((d, h), WHOLE), ((d,), WHOLE), ((d,), WHOLE), ((heads, h), WHOLE)]


def v4(ratio: int, overlap: int, index: int) -> list[Shape]:
    """DeepSeek-V4-Flash; `index` is the width of the indexer's keys, 0 without one."""
    h, heads, d, rank = 4096, 64, 512, 1024
    shapes: list[Shape] = [
        ((rank, h), WHOLE), ((rank,), WHOLE), ((heads * d, rank), ANY), ((d, h), WHOLE), ((d,), WHOLE),
        ((8 * 1024, heads * d // 8), ANY), ((h, 8 * 1024), ANY), ((heads,), ANY),
    ]  # fmt: skip
    for width in (d, index):
        if ratio and width:  # kv_proj, gate_proj, position_bias, kv_norm
            shapes += [((overlap * width, h), WHOLE)] * 2
            shapes += [((ratio, overlap * width), WHOLE), ((width,), WHOLE)]
    if index:  # q_b_proj, weights_proj
        shapes += [((64 * index, rank), WHOLE), ((64, h), WHOLE)]
    return shapes


H = 64
HYBRID: dict[str, tuple[Any, int, list[Shape]]] = {
    "jamba mamba": (
        Mamba(kind="mamba", inner=128, state=16, step_rank=8, inner_norms=True), H,
        [
            ((2 * 128, H), ANY), ((128, 1, 4), ANY), ((128,), ANY), ((8 + 2 * 16, 128), ANY), ((128, 8), ANY),
            ((128,), ANY), ((128, 16), ANY), ((128,), ANY), ((H, 128), ANY), ((8,), WHOLE), ((16,), WHOLE),
            ((16,), WHOLE),
        ],
    ),
    "lfm2 short_conv": (
        ShortConv(kind="short_conv", inner=H, bias=True), H,
        [((3 * H, H), ANY), ((3 * H,), ANY), ((H, 1, 3), ANY), ((H,), ANY), ((H, H), ANY), ((H,), WHOLE)],
    ),
    "minimax lightning": (
        Lightning(kind="lightning", heads=8, head_dim=16), H,
        [((3 * 128, H), ANY), ((128, H), ANY), ((H, 128), ANY), ((128,), ANY)],
    ),
    "ling lightning": (
        Lightning(kind="lightning", heads=8, head_dim=16, qk_norm=True), H,
        [((3 * 128, H), ANY), ((128, H), ANY), ((H, 128), ANY), ((128,), ANY), ((16,), WHOLE), ((16,), WHOLE)],
    ),
    "kimi linear kda": (
        KimiDelta(kind="kda", heads=8, head_dim=16), H,
        [
            *[((128, H), ANY)] * 3, ((3 * 128, 1, 4), ANY), ((8, H), ANY), ((16, H), WHOLE), ((128, 16), ANY),
            ((128,), ANY), ((8,), ANY), ((16, H), WHOLE), ((128, 16), ANY), ((16,), WHOLE), ((H, 128), ANY),
        ],
    ),
    "ling 3 kda": (
        KimiDelta(kind="kda", heads=8, head_dim=16, full_rank_gate=True, full_rank_forget=True), H,
        [
            *[((128, H), ANY)] * 3, ((3 * 128, 1, 4), ANY), ((8, H), ANY), ((128, H), ANY), ((128,), ANY), ((8,), ANY),
            ((128, H), ANY), ((16,), WHOLE), ((H, 128), ANY),
        ],
    ),
    "step-3 gqa": (
        GqaAttention(kind="gqa", query_heads=16, kv_heads=1, head_dim=8, q_rank=32), H,
        [
            ((32, H), WHOLE), ((32,), WHOLE), ((16 * 8, 32), ANY), ((8, H), WHOLE), ((8, H), WHOLE), ((H, 16 * 8), ANY),
        ],
    ),
    "mimo gqa": (
        GqaAttention(kind="gqa", query_heads=16, kv_heads=4, head_dim=8, value_dim=4, sinks=True), H,
        [((16 * 8, H), ANY), ((4 * 8, H), 4), ((4 * 4, H), 4), ((H, 16 * 4), ANY), ((16,), ANY)],
    ),
    "minimax-m2 gqa": (
        GqaAttention(kind="gqa", query_heads=16, kv_heads=4, head_dim=8, qk_norm=True, qk_norm_span="all_heads"), H,
        [*gqa(H, 16, 4, 8), ((16 * 8,), ANY), ((4 * 8,), 4)],
    ),
    "step-3.5 gqa": (
        GqaAttention(kind="gqa", query_heads=16, kv_heads=4, head_dim=8, gate="head"), H,
        [*gqa(H, 16, 4, 8), ((16, H), ANY)],
    ),
    "glm-4.5 mla with biases": (
        MlaAttention(
            kind="mla", heads=16, q_rank=32, kv_rank=24, rope_dim=4, nope_dim=8, value_dim=6, bias=True, gate=True
        ), H,
        [
            *mla(H, 16, 32, 24, 8, 4, 6), ((32,), WHOLE), ((24 + 4,), WHOLE), ((H,), WHOLE), ((16 * 6, H), ANY),
        ],
    ),
    "a dense block": (
        DenseFfn(kind="dense", width=96, bias=True), H,
        [((96, H), ANY), ((96, H), ANY), ((H, 96), ANY), ((96,), ANY), ((96,), ANY), ((H,), WHOLE)],
    ),
    "a dense block of two matrices": (
        DenseFfn(kind="dense", width=96, gated=False), H, [((96, H), ANY), ((H, 96), ANY)],
    ),
}  # fmt: skip

#: Mixers of the catalog, at their own size.
CATALOG: dict[tuple[str, str], list[Shape]] = {
    ("gpt_oss_120b", "full"): [
        *gqa(2880, 64, 8, 64), ((64 * 64,), ANY), ((8 * 64,), 8), ((8 * 64,), 8), ((2880,), WHOLE), ((64,), ANY),
    ],
    # Queries and the gate come from one projection of twice the width; norms are of one head.
    ("qwen3_next_80b_a3b", "full"): [
        *gqa(2048, 16, 2, 256), ((16 * 256, 2048), ANY), ((256,), WHOLE), ((256,), WHOLE),
    ],
    ("qwen3_next_80b_a3b", "gated_delta"): [
        ((2 * 16 * 128 + 2 * 32 * 128, 2048), ANY), ((2 * 32, 2048), ANY), ((2 * 16 * 128 + 32 * 128, 1, 4), ANY),
        ((32,), ANY), ((32,), ANY), ((128,), WHOLE), ((2048, 32 * 128), ANY),
    ],
    ("gemma_4_26b_a4b", "full"): [
        ((16 * 512, 2816), ANY), ((2 * 512, 2816), 2), ((2816, 16 * 512), ANY), ((512,), WHOLE), ((512,), WHOLE),
    ],
    ("deepseek_r1", "full"): mla(7168, 128, 1536, 512, 128, 64, 128),
    ("deepseek_v2_lite", "full"): mla(2048, 16, 0, 512, 128, 64, 128),
    ("deepseek_v3_2", "sparse"): [*mla(7168, 128, 1536, 512, 128, 64, 128), *indexer(7168, 1536, 64, 128)],
    ("deepseek_v4_flash", "sliding"): v4(0, 1, 0),
    ("deepseek_v4_flash", "sparse"): v4(4, 2, 128),
    ("deepseek_v4_flash", "compressed"): v4(128, 1, 0),
    ("nemotron_3_super", "mamba2"): [
        ((2 * 8192 + 128, 4096), ANY), ((2 * 8 * 128, 4096), 8), ((8192, 1, 4), ANY), ((2 * 8 * 128, 1, 4), 8),
        ((8192,), ANY), ((2 * 8 * 128,), 8), ((128,), ANY), ((128,), ANY), ((128,), ANY), ((8192,), ANY),
        ((4096, 8192), ANY),
    ],
    # One group: every GPU has all of its inputs and outputs.
    ("granite_4_0_h_small", "mamba2"): [
        ((2 * 8192 + 128, 4096), ANY), ((2 * 128, 4096), 1), ((8192, 1, 4), ANY), ((2 * 128, 1, 4), 1),
        ((8192,), ANY), ((2 * 128,), 1), ((128,), ANY), ((128,), ANY), ((128,), ANY), ((8192,), ANY),
        ((4096, 8192), ANY),
    ],
}  # fmt: skip


def check(weights: tuple[Weight, ...], shapes: list[Shape], tp_problem: Any) -> None:
    assert sum(each.count for each in weights) == on_a_gpu(shapes, 1)
    for tp in (2, 8, 16):
        if not tp_problem(tp):
            assert sum(each.local(tp) for each in weights) == on_a_gpu(shapes, tp)


@pytest.mark.parametrize("name", sorted(HYBRID))
def test_a_block_is_the_sum_of_its_tensors(name: str) -> None:
    block, hidden, shapes = HYBRID[name]
    check(block.weights(hidden), shapes, block.tp_problem)


@pytest.mark.parametrize(("model", "name"), sorted(CATALOG))
def test_a_mixer_of_the_catalog_is_the_sum_of_its_tensors(model: str, name: str) -> None:
    found = load_model(model)
    mixer = found.mixers[name]
    check(mixer.weights(found.hidden), CATALOG[model, name], mixer.tp_problem)


@pytest.mark.parametrize("name", sorted(HYBRID))
def test_shares_make_the_whole_and_repeated_ones_count_once(name: str) -> None:
    block, hidden, _ = HYBRID[name]
    for each in block.weights(hidden):
        for tp in (1, 2, 8):
            holders = tp if each.parts is None else min(tp, each.parts)
            assert each.local(tp) * holders == pytest.approx(each.count)
            assert each.local(tp) >= each.count / tp


def test_experts_are_the_sum_of_their_tensors() -> None:
    shared = Moe(
        experts=8, top_k=2, expert_width=16, shared_experts=2, shared_width=10, shared_gate=True, router_bias=True
    )  # fmt: skip
    (router,) = shared.router_weights(H)
    assert (router.count, router.local(8)) == (8 * H + 8, 8 * H + 8)
    assert sum(each.count for each in shared.shared_weights(H)) == 3 * H * 20 + H
    assert sum(each.local(4) for each in shared.shared_weights(H)) == 3 * H * 20 / 4 + H
    assert shared.expert_elements(H) == 3 * H * 16
    # gpt-oss: both projections of an expert have a bias.
    biased = Moe(experts=8, top_k=2, expert_width=16, bias=True)
    assert biased.expert_elements(H) == 2 * 16 * H + 2 * 16 + H * 16 + H
    # Nemotron 3: two matrices on the latent width, between fc1_latent_proj and fc2_latent_proj; the shared expert works
    # on the hidden width.
    latent = Moe(experts=8, top_k=2, expert_width=16, gated=False, latent=24, shared_experts=1, shared_width=40)
    assert latent.expert_elements(H) == 2 * 24 * 16
    assert sum(each.count for each in latent.shared_weights(H)) == 2 * H * 40 + 2 * H * 24
    assert sum(each.local(4) for each in latent.shared_weights(H)) == 2 * H * 40 / 4 + 2 * H * 24
    assert latent.sent_width(H) == 24
    # LongCat: the router scores experts that have no weights.
    zero = Moe(experts=8, top_k=6, expert_width=16, zero_experts=4, router_bias=True)
    assert zero.router_weights(H)[0].count == 12 * H + 12
    assert zero.computed_top_k == 4
    # DeepSeek-V4's hash layers weigh the experts that they look up: the router's matrix is there, its correction isn't.
    hashed = Moe(experts=8, top_k=2, expert_width=16, hash_routed=True)
    assert hashed.router_weights(H)[0].count == 8 * H
