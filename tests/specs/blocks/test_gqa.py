"""Grouped queries: caches filled token by token, and every pair under the mask."""

from __future__ import annotations

from typing import Any

import pytest

from specs.blocks.attention import BlockIndexer, GqaAttention
from tests.specs.blocks import oracle
from tests.specs.blocks.oracle import CONTEXTS, LENGTHS, TP, attended, size


def gqa(**changes: Any) -> GqaAttention:
    return GqaAttention(**({"kind": "gqa", "query_heads": 16, "kv_heads": 4, "head_dim": 6, "value_dim": 3} | changes))


@pytest.mark.parametrize("tp", [*TP, 16])
@pytest.mark.parametrize("kv", sorted(oracle.SIZES))
@pytest.mark.parametrize("window", [None, 1, 8, 128])
def test_gqa_keeps_what_its_window_holds(kv: Any, window: int | None, tp: int) -> None:
    for mixer, width in (
        (gqa(window=window), 6 + 3),
        (gqa(window=window, value_dim=None), 6 + 6),
        # Keys have a norm and positions that values have not: both are kept even where one projection makes both.
        (gqa(window=window, value_dim=None, key_is_value=True), 6 + 6),
        (gqa(window=window, gate="element", sinks=True, bias=True, q_rank=9), 6 + 3),
    ):
        for context in CONTEXTS:
            entries = oracle.windowed(context, window) * oracle.kv_heads_of_a_gpu(16, 4, tp)
            assert size(mixer, context, tp, kv) == pytest.approx(entries * width * oracle.SIZES[kv])


@pytest.mark.parametrize("tp", TP)
def test_gqa_in_chunks_keeps_the_most_that_it_ever_holds(tp: int) -> None:
    for context in CONTEXTS:
        entries = oracle.chunked(context, 8) * oracle.kv_heads_of_a_gpu(16, 4, tp)
        assert size(gqa(window=8, chunked=True), context, tp) == entries * 9 * 2


@pytest.mark.parametrize("tp", TP)
def test_gqa_with_a_block_indexer_keeps_one_more_key_on_every_gpu(tp: int) -> None:
    mixer = gqa(indexer=BlockIndexer(heads=4, head_dim=16, block=2, top_blocks=3))
    for context in CONTEXTS:
        entries = oracle.windowed(context, None)
        assert size(mixer, context, tp) == entries * (9 * oracle.kv_heads_of_a_gpu(16, 4, tp) + 16) * 2


BLOCKS = BlockIndexer(heads=4, head_dim=16, block=2, top_blocks=3)


@pytest.mark.parametrize("tp", TP)
@pytest.mark.parametrize("length", LENGTHS)
def test_gqa(length: int, tp: int) -> None:
    # A query with a key, 6 elements, and a weight with a value, 3, of each of the GPU's heads.
    pair = sum(2 * 6 + 2 * 3 for _ in range(16 // tp))
    for window in (None, 1, 8, 24):
        mask = oracle.causal if window is None else oracle.sliding(window)
        every, last = attended(length, mask)
        mixer = gqa(window=window)
        assert mixer.prefill_flops(length, tp) == every * pair
        assert mixer.decode_flops(length, tp) == last * pair


@pytest.mark.parametrize("length", LENGTHS)
def test_gqa_in_chunks(length: int) -> None:
    every, _ = attended(length, oracle.side_by_side(8))
    mixer = gqa(window=8, chunked=True)
    assert mixer.prefill_flops(length, 2) == every * 8 * 18
    # A step is the mean over a chunk: eight steps cost what eight tokens of a prompt do.
    steps = sum(mixer.decode_flops(context, 2) for context in range(1, 9))
    assert steps == 8 * mixer.decode_flops(9, 2) == mixer.prefill_flops(16, 2) - mixer.prefill_flops(8, 2)


@pytest.mark.parametrize("tp", TP)
@pytest.mark.parametrize("length", LENGTHS)
def test_gqa_with_a_block_indexer_scores_every_key_and_attends_to_some(length: int, tp: int) -> None:
    every, last = attended(length)
    picked, few = attended(length, most=2 * 3)
    # Its heads lie with the KV heads: four on one GPU, one on each where there are as many or more.
    pair, score = 16 // tp * 18, 2 * 16 * max(1, 4 // tp)
    mixer = gqa(indexer=BLOCKS)
    assert mixer.prefill_flops(length, tp) == picked * pair + every * score
    assert mixer.decode_flops(length, tp) == few * pair + last * score


def test_gqa_attends_by_one_rule() -> None:
    with pytest.raises(ValueError, match="window and indexer"):
        gqa(window=8, indexer=BLOCKS)
    with pytest.raises(ValueError, match="chunked needs window"):
        gqa(chunked=True)
