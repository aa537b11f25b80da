"""Latent and compressed attention: caches filled token by token, and every pair under the mask."""

from __future__ import annotations

from typing import Any

import pytest

from specs.blocks.latent import CompressedAttention, Indexer, MlaAttention
from tests.specs.blocks import oracle
from tests.specs.blocks.oracle import CONTEXTS, LENGTHS, TP, attended, size


def mla(**changes: Any) -> MlaAttention:
    fields = {"kind": "mla", "heads": 16, "q_rank": 12, "kv_rank": 10, "rope_dim": 4, "nope_dim": 8, "value_dim": 6}
    return MlaAttention(**(fields | changes))


def v4(**changes: Any) -> CompressedAttention:
    fields = {
        "kind": "compressed", "heads": 16, "head_dim": 10, "q_rank": 12, "output_groups": 8, "output_rank": 5,
        "window": 8,
    }  # fmt: skip
    return CompressedAttention(**(fields | changes))


PICKS = Indexer(heads=4, head_dim=16, top_k=5)


@pytest.mark.parametrize("tp", TP)
@pytest.mark.parametrize("kv", sorted(oracle.SIZES))
def test_mla_keeps_one_vector_whole_on_every_gpu(kv: Any, tp: int) -> None:
    for context in CONTEXTS:
        for mixer in (mla(), mla(q_rank=None), mla(gate=True, bias=True)):
            assert size(mixer, context, tp, kv) == pytest.approx(context * 14 * oracle.SIZES[kv])
        kept = oracle.windowed(context, 8)
        assert size(mla(window=8), context, tp, kv) == pytest.approx(kept * 14 * oracle.SIZES[kv])
        # The indexer's keys have 8 bits and a scale, whatever type the cache has; the rotary part always has 16 bits.
        entry = 10 * oracle.SIZES[kv] + 4 * 2 + (4 if kv == "fp8" else 0)
        assert size(mla(indexer=PICKS), context, tp, kv) == pytest.approx(context * (entry + 16 + 4))
        shared = mla(indexer=PICKS.model_copy(update={"shared": True}))
        assert size(shared, context, tp, kv) == pytest.approx(context * entry)


def test_an_indexers_key_has_a_scale_for_every_128_elements() -> None:
    # vLLM 0.33, DeepseekV32IndexerCache: 128 + 128 // 128 * 4.
    assert Indexer(heads=64, head_dim=128, top_k=2048).entry_bytes == 132
    assert Indexer(heads=64, head_dim=256, top_k=2048).entry_bytes == 264


@pytest.mark.parametrize("tp", TP)
@pytest.mark.parametrize("kv", ["bf16", "fp8"])
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("ratio", [0, 4, 128])
def test_compressed_entries_come_one_by_one(ratio: int, overlap: bool, kv: Any, tp: int) -> None:
    stretches = 2 if overlap else 1
    for context in CONTEXTS:
        entries = oracle.compressed(context, ratio) if ratio else 0
        kept = (oracle.windowed(context, 8) + entries) * 10 * oracle.SIZES[kv]
        # A value and a weight, in 32 bits, for each token of the stretches and each of their projections.
        waiting = 2 * 4 * (stretches * ratio) * (stretches * 10)
        assert size(v4(ratio=ratio, overlap=overlap), context, tp, kv) == pytest.approx(kept + waiting)
        if not ratio:
            continue
        own = 2 * 4 * (stretches * ratio) * (stretches * 16) + entries * (16 + 4)
        mixer = v4(ratio=ratio, overlap=overlap, indexer=PICKS)
        assert size(mixer, context, tp, kv) == pytest.approx(kept + waiting + own)
        shared = v4(ratio=ratio, overlap=overlap, indexer=PICKS.model_copy(update={"shared": True}))
        assert size(shared, context, tp, kv) == pytest.approx(kept + waiting)


def test_an_indexer_needs_entries_to_pick_from() -> None:
    with pytest.raises(ValueError, match="ratio is 0"):
        v4(indexer=PICKS)
    with pytest.raises(ValueError, match="not a multiple of output_groups"):
        v4(output_groups=3)


@pytest.mark.parametrize("tp", TP)
@pytest.mark.parametrize("length", LENGTHS)
def test_mla(length: int, tp: int) -> None:
    fields = {"kind": "mla", "heads": 16, "q_rank": 12, "kv_rank": 10, "rope_dim": 4, "nope_dim": 8, "value_dim": 6}
    # A prompt multiplies expanded heads; a step the one vector of 10 + 4, and of 10 again for the output.
    expanded, absorbed = 16 // tp * 2 * (8 + 4 + 6), 16 // tp * 2 * (10 + 4 + 10)
    for window in (None, 1, 8):
        every, last = attended(length, oracle.causal if window is None else oracle.sliding(window))
        for changes in ({}, {"q_rank": None}, {"gate": True}):
            mixer = MlaAttention(**(fields | changes | {"window": window}))  # type: ignore[arg-type]
            assert mixer.prefill_flops(length, tp) == every * expanded
            assert mixer.decode_flops(length, tp) == last * absorbed
    every, last = attended(length)
    picked, few = attended(length, most=5)
    for shared in (False, True):
        score = 0 if shared else 4 * 2 * 16  # whole on every GPU
        picks = PICKS.model_copy(update={"shared": shared})
        mixer = MlaAttention(**(fields | {"indexer": picks}))  # type: ignore[arg-type]
        sparse = picked * (expanded if length <= 5 else absorbed)
        assert mixer.prefill_flops(length, tp) == sparse + every * score
        assert mixer.decode_flops(length, tp) == few * absorbed + last * score


@pytest.mark.parametrize("tp", TP)
@pytest.mark.parametrize("ratio", [0, 1, 4, 7])
@pytest.mark.parametrize("length", LENGTHS)
def test_compressed_pairs_with_entries_that_are_complete(length: int, ratio: int, tp: int) -> None:
    fields = {
        "kind": "compressed", "heads": 16, "head_dim": 10, "q_rank": 12, "output_groups": 8, "output_rank": 5,
        "window": 8, "ratio": ratio,
    }  # fmt: skip
    pair = 16 // tp * (2 * 10 + 2 * 10)
    near, nearest = attended(length, oracle.sliding(8))
    done = oracle.complete(ratio)
    entries = length // ratio if ratio else 0
    far, farthest = attended(length, done, entries)
    mixer = CompressedAttention(**fields)  # type: ignore[arg-type]
    assert mixer.prefill_flops(length, tp) == (near + far) * pair
    assert mixer.decode_flops(length, tp) == (nearest + farthest) * pair
    if ratio:
        mixer = CompressedAttention(**fields, indexer=Indexer(heads=4, head_dim=16, top_k=3))  # type: ignore[arg-type]
        picked, few = attended(length, done, entries, most=3)
        assert mixer.prefill_flops(length, tp) == (near + picked) * pair + far * 4 * 2 * 16
        assert mixer.decode_flops(length, tp) == (nearest + few) * pair + farthest * 4 * 2 * 16
