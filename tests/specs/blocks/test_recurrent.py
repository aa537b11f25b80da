"""States: their shapes, recurrences run number by number, and prompts chunk by chunk."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from specs.blocks.base import Mixer
from specs.blocks.recurrent import GatedDelta, KimiDelta, Lightning, Mamba, Mamba2, ShortConv
from specs.loading import load_model
from tests.specs.blocks import oracle
from tests.specs.blocks.oracle import CONTEXTS, TP, size

#: Each kind, the shapes of its state, and those of its convolution's last inputs, on one of `tp` GPUs (the layouts of
#: vLLM 0.33, `MambaStateShapeCalculator`).
STATES: dict[str, tuple[Mixer, Any, Any]] = {
    "gated_delta": (
        GatedDelta(kind="gated_delta", key_heads=8, value_heads=16, key_dim=6, value_dim=4),
        lambda tp: (16 // tp, 4, 6),
        lambda tp: (3, (2 * 8 * 6 + 16 * 4) // tp),
    ),
    "kda": (
        KimiDelta(kind="kda", heads=8, head_dim=6, conv=3),
        lambda tp: (8 // tp, 6, 6),
        lambda tp: (2, 3 * 8 * 6 // tp),
    ),
    "lightning": (Lightning(kind="lightning", heads=8, head_dim=6), lambda tp: (8 // tp, 6, 6), lambda tp: (0,)),
    "mamba2": (
        Mamba2(kind="mamba2", heads=16, head_dim=4, state=8, groups=8),
        lambda tp: (16 // tp, 4, 8),
        lambda tp: (3, (16 * 4 + 2 * 8 * 8) // tp),
    ),
    "mamba2 of one group": (
        Mamba2(kind="mamba2", heads=16, head_dim=4, state=8),
        lambda tp: (16 // tp, 4, 8),
        lambda tp: (3, 16 * 4 // tp + 2 * 8),
    ),
    "mamba": (
        Mamba(kind="mamba", inner=24, state=8, step_rank=3),
        lambda tp: (24 // tp, 8),
        lambda tp: (3, 24 // tp),
    ),
    "short_conv": (ShortConv(kind="short_conv", inner=24), lambda tp: (0,), lambda tp: (2, 24 // tp)),
}


@pytest.mark.parametrize("tp", TP)
@pytest.mark.parametrize("state", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(STATES))
def test_states_have_a_fixed_shape(name: str, state: Any, tp: int) -> None:
    mixer, kept, inputs = STATES[name]
    expected = prod(kept(tp)) * oracle.SIZES[state] + prod(inputs(tp)) * 2
    for context in CONTEXTS:
        assert size(mixer, context, tp, "fp8", state) == expected
        assert mixer.read(context, tp).size("fp8", state) == 2 * expected  # read, and written


def test_heads_that_no_engine_repeats_are_refused() -> None:
    delta = GatedDelta(kind="gated_delta", key_heads=8, value_heads=16, key_dim=6, value_dim=4)
    # vLLM 0.33 and SGLang 0.5.23 give a GPU key_heads // tp of them.
    assert "key heads" in delta.tp_problem(16)
    assert delta.tp_problem(8) == ""
    # Both repeat one group on every GPU, and assert that several divide.
    assert "8 groups" in Mamba2(kind="mamba2", heads=16, head_dim=4, state=8, groups=8).tp_problem(16)
    assert Mamba2(kind="mamba2", heads=16, head_dim=4, state=8).tp_problem(16) == ""


def _layer(model: str, mixer: str, context: float, tp: int = 1) -> float:
    found = load_model(model)
    return size(found.mixers[mixer], context, tp, found.types.kv_cache, found.types.state)


def test_magnitudes_that_others_state() -> None:
    # DeepSeek-V3.2: an entry of 656 bytes in 8 bits, 1,152 in 16, and 132 of the indexer (vLLM 0.33, flashmla_sparse.py
    # and DeepseekV32IndexerCache).
    sparse = load_model("deepseek_v3_2").mixers["sparse"]
    assert [size(sparse, 1, 8, kv) for kv in ("fp8", "bf16")] == [656 + 132, 1152 + 132]
    # Qwen3-Next, one Gated DeltaNet layer: 32 heads of 128 x 128 in 32 bits, and 3 inputs of 8,192 channels.
    assert _layer("qwen3_next_80b_a3b", "gated_delta", 9) == 32 * 128 * 128 * 4 + 3 * 8192 * 2
    # Nemotron 3 Super, one Mamba-2 layer: (128, 64, 128), and 3 inputs of 8,192 + 2 x 8 x 128 channels.
    assert _layer("nemotron_3_super", "mamba2", 9) == 128 * 64 * 128 * 4 + 3 * 10240 * 2
    # DeepSeek-V4 (transformers 5.24): 128 tokens of 512, one entry in 4 tokens, an indexer's key for each.
    entries = 4096 // 4
    waiting = 2 * 4 * 8 * (2 * 512 + 2 * 128)
    assert _layer("deepseek_v4_flash", "sparse", 4098) == (128 + entries) * 512 * 2 + entries * 132 + waiting
    assert _layer("deepseek_v4_flash", "compressed", 4098) == (128 + 32) * 512 * 2 + 2 * 4 * 128 * 512


#: Each kind: heads, rows and columns of the state, channels and taps of the convolution, whether it corrects.
RECURRENT: dict[str, tuple[Mixer, tuple[int, int, int], tuple[int, int], bool]] = {
    "gated_delta": (
        GatedDelta(kind="gated_delta", key_heads=8, value_heads=16, key_dim=6, value_dim=4),
        (16, 6, 4), (2 * 8 * 6 + 16 * 4, 4), True,
    ),
    "kda": (KimiDelta(kind="kda", heads=8, head_dim=6, conv=3), (8, 6, 6), (3 * 8 * 6, 3), True),
    "lightning": (Lightning(kind="lightning", heads=8, head_dim=6), (8, 6, 6), (0, 0), False),
    "mamba2": (
        Mamba2(kind="mamba2", heads=16, head_dim=4, state=7, groups=8), (16, 7, 4), (16 * 4 + 2 * 8 * 7, 4), False,
    ),
    "mamba": (Mamba(kind="mamba", inner=24, state=7, step_rank=3), (24, 7, 1), (24, 4), False),
    "short_conv": (ShortConv(kind="short_conv", inner=24), (0, 0, 0), (24, 3), False),
}  # fmt: skip


@pytest.mark.parametrize("tp", TP)
@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_a_step_of_a_recurrence(name: str, tp: int) -> None:
    mixer, (heads, rows, columns), (channels, taps), corrects = RECURRENT[name]
    step = sum(oracle.delta_step(rows, columns, corrects) for _ in range(heads // tp))
    step += oracle.convolution(channels // tp, taps)
    assert [mixer.decode_flops(context, tp) for context in (0, 1, 1000)] == [step] * 3


@pytest.mark.parametrize("name", sorted(set(RECURRENT) - {"mamba", "short_conv"}))
def test_a_prompt_of_a_recurrence_is_worked_on_in_chunks(name: str) -> None:
    mixer, (heads, rows, columns), (channels, taps), corrects = RECURRENT[name]
    for length in (1, 5, 64, 128, 150):
        longest = min(64, length)
        full = oracle.chunk_flops(longest, rows, columns, corrects)
        # A last chunk counts by its share of a full one.
        work = heads * sum(full * size / longest for size in oracle.chunks(length, 64))
        work += length * oracle.convolution(channels, taps)
        assert mixer.prefill_flops(length, 1) == pytest.approx(work)
        assert mixer.prefill_flops(length, 8) == pytest.approx(work / 8)


@pytest.mark.parametrize("name", ["mamba", "short_conv"])
def test_a_scan_costs_a_step_for_every_token(name: str) -> None:
    mixer = RECURRENT[name][0]
    assert mixer.prefill_flops(150, 2) == sum(mixer.decode_flops(context, 2) for context in range(150))


def test_one_group_of_mamba2_is_convolved_on_every_gpu() -> None:
    mixer = Mamba2(kind="mamba2", heads=16, head_dim=4, state=7)
    step = 2 * oracle.delta_step(7, 4, corrects=False) + oracle.convolution(16 * 4 // 8 + 2 * 7, 4)
    assert mixer.decode_flops(9, 8) == step
