"""What holds of every kind of block at any size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.blocks.attention import BlockIndexer, GqaAttention
from specs.blocks.base import Mixer
from specs.blocks.latent import CompressedAttention, Indexer, MlaAttention
from specs.blocks.recurrent import GatedDelta, KimiDelta, Lightning, Mamba, Mamba2, Recurrent, ShortConv

TP = (1, 2, 4, 8)
small = st.integers(1, 9)
even = small.map(lambda n: 8 * n)
flag = st.booleans()
indexers = st.builds(Indexer, heads=small, head_dim=even, top_k=small, shared=flag)

block_indexers = st.builds(BlockIndexer, heads=small, head_dim=even, block=small, top_blocks=small)


def _gqa(kv: int, per: int, seen: Any, fields: dict[str, Any]) -> GqaAttention:
    return GqaAttention(kind="gqa", query_heads=8 * kv * per, kv_heads=kv, **seen, **fields)


seen = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"window": small}),
    st.fixed_dictionaries({"indexer": block_indexers}),
)  # fmt: skip
gqas = st.builds(
    _gqa, st.sampled_from((1, 2, 4, 8)), small, seen,
    st.fixed_dictionaries(
        {
            "head_dim": small, "value_dim": st.none() | small, "gate": st.sampled_from(("none", "element", "head")),
            "q_rank": st.none() | small, "bias": flag, "qk_norm": flag, "key_is_value": flag,
        }
    ),
)  # fmt: skip
mlas = st.builds(
    lambda seen, **fields: MlaAttention(kind="mla", **seen, **fields),
    st.one_of(
        st.just({}), st.fixed_dictionaries({"window": small}), st.fixed_dictionaries({"indexer": indexers})
    ),
    heads=even, q_rank=st.none() | small, kv_rank=small, rope_dim=small, nope_dim=small, value_dim=small, gate=flag,
)  # fmt: skip
compressed = st.builds(
    lambda ratio, indexer, **fields: CompressedAttention(
        kind="compressed", output_groups=8, ratio=ratio, indexer=indexer if ratio else None, **fields
    ),
    ratio=st.integers(0, 9), indexer=st.none() | indexers, heads=even, head_dim=even, q_rank=small, output_rank=small,
    window=small, overlap=flag,
)  # fmt: skip
recurrent = st.one_of(
    st.builds(
        lambda key, per, **fields: GatedDelta(kind="gated_delta", key_heads=key, value_heads=key * per, **fields),
        even, small, key_dim=small, value_dim=small, conv=small,
    ),
    st.builds(KimiDelta, kind=st.just("kda"), heads=even, head_dim=small, full_rank_gate=flag, full_rank_forget=flag),
    st.builds(Lightning, kind=st.just("lightning"), heads=even, head_dim=small),
    st.builds(
        Mamba2, kind=st.just("mamba2"), heads=even, head_dim=small, state=small, groups=st.sampled_from((1, 8, 16)),
    ),
    st.builds(Mamba, kind=st.just("mamba"), inner=even, state=small, step_rank=small),
    st.builds(ShortConv, kind=st.just("short_conv"), inner=even, conv=small, bias=flag),
)  # fmt: skip
attention = st.one_of(gqas, mlas, compressed)
contexts = st.integers(0, 40)


@settings(max_examples=150, deadline=None)
@given(attention, contexts, contexts)
def test_attention_reads_no_more_than_it_stores_and_both_grow(mixer: Mixer, one: int, other: int) -> None:
    less, more = min(one, other), max(one, other)
    for tp in TP:
        for size in (lambda kept: kept.size("bf16", "fp32"), lambda kept: kept.size("fp8", "bf16")):
            assert size(mixer.read(more, tp)) <= size(mixer.stored(more, tp))
            assert size(mixer.read(less, tp)) <= size(mixer.read(more, tp))
            assert size(mixer.stored(less, tp)) <= size(mixer.stored(more, tp))
        assert mixer.decode_flops(less, tp) <= mixer.decode_flops(more, tp)


@settings(max_examples=100, deadline=None)
@given(st.one_of(gqas, compressed), contexts)
def test_a_prompt_costs_what_its_tokens_cost_one_by_one(mixer: Mixer, length: int) -> None:
    for tp in TP:
        steps = sum(mixer.decode_flops(context, tp) for context in range(1, length + 1))
        assert mixer.prefill_flops(length, tp) == pytest.approx(steps)


@settings(max_examples=100, deadline=None)
@given(recurrent, contexts, st.sampled_from(TP))
def test_a_state_is_shared_by_all_gpus_and_never_grows(mixer: Recurrent, context: int, tp: int) -> None:
    assert mixer.tp_problem(tp) == ""
    assert mixer.stored(context, tp) == mixer.stored(0, tp)
    assert mixer.stored(0, tp).states * tp == pytest.approx(mixer.stored(0, 1).states)
    assert mixer.stored(0, tp).bytes * tp >= mixer.stored(0, 1).bytes * (1 - 1e-12)


@settings(max_examples=200, deadline=None)
@given(st.one_of(attention, recurrent), small)
def test_widths_and_shares_fall_with_more_gpus(mixer: Mixer, hidden: int) -> None:
    weights = mixer.weights(hidden)
    assert all(isinstance(each.count, int) and each.count >= 0 for each in weights)
    for word in ("width", "selective_width"):
        values = [getattr(mixer, word)(tp) for tp in TP]
        assert values == sorted(values, reverse=True)
        assert values[-1] > 0
    assert mixer.operand_elements() > 0
    local = [sum(each.local(tp) for each in weights) for tp in TP]
    assert local == sorted(local, reverse=True)
    assert all(share * tp >= local[0] * (1 - 1e-12) for share, tp in zip(local, TP, strict=True))


@settings(max_examples=100, deadline=None)
@given(mlas)
def test_what_is_kept_or_made_again_is_all_of_mla(mixer: MlaAttention) -> None:
    """Training keeps the input of each product, or makes it again from what it keeps."""
    queries = mixer.heads * (mixer.nope_dim + mixer.rope_dim)
    values = mixer.heads * mixer.value_dim
    rank = mixer.q_rank or 0
    kept = rank + mixer.kv_rank + mixer.rope_dim + values + values * mixer.gate
    made = mixer.heads * mixer.kv_rank * (mixer.nope_dim + mixer.value_dim)
    if mixer.q_rank:
        made += queries * rank
    else:
        kept += queries
    assert (mixer.selective_width(1), mixer.again()) == (kept, made)
    # Queries, keys and values, output, and the gate.
    assert mixer.width(1) == rank + mixer.kv_rank + mixer.rope_dim + 2 * queries + 2 * values + values * mixer.gate


def test_a_gate_is_among_the_activations() -> None:
    plain, gated, by_head = (
        GqaAttention(kind="gqa", query_heads=16, kv_heads=4, head_dim=8, gate=gate)
        for gate in ("none", "element", "head")
    )  # fmt: skip
    assert gated.width(2) - plain.width(2) == 16 * 8 / 2
    assert by_head.width(2) - plain.width(2) == 16 / 2
    # Two heads of keys and values on each of two GPUs, one on each of eight.
    assert [plain.width(tp) for tp in (2, 8)] == [16 * (8 + 2), 16 * (2 + 1)]
