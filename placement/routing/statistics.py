"""What a solver needs of a trace: loads by window and the distinct k-sets of experts, a layer each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.arithmetic import weighted_sum
from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.data import LayerData, TokenSets
from placement.routing.drift import Stretches
from placement.routing.parts import window_edges
from placement.routing.trace import LoadCounts, Trace

#: Weight of the mixture against its own windows in `with_mixture`. Measured on three recorded domains (4 nodes x 4
#: GPUs, held-out halves): windows alone cost 4% more nodes per token than the mixture alone, a seventh of the weight
#: 1%, and lifts the balancedness of every single domain from 0.65 to 0.71.
MIXTURE_SHARE = 0.85


def with_mixture(layer: LayerData) -> LayerData:
    """The layer with one more window in front, the mean of the others, at MIXTURE_SHARE of the weight.

    So that no domain is left with a bad balance. A layer of one window is returned as it is.
    """
    if len(layer.load) == 1:
        return layer
    weight, sets = layer.window_weight, layer.sets
    if sets is not None:
        sets = TokenSets(sets.ids, np.concatenate([weighted_sum(weight, sets.weight)[None], sets.weight]))
    load = np.concatenate([layer.mean_load[None], layer.load])
    shares = np.concatenate([[MIXTURE_SHARE], (1 - MIXTURE_SHARE) * weight])
    return LayerData(load, shares, sets, layer.drift, layer.tokens, layer.comovement)


def layer_statistics(sources: Sequence[Trace], windows_per_trace: int = 1) -> tuple[LayerData, ...]:
    """Statistics of every MoE layer over one or more traces of one model.

    Args:
        sources: the traces; each is cut into windows of whole sequences. Windows lie in the order of the traces.
        windows_per_trace: windows of each trace; a trace of fewer sequences gets one window a sequence.

    Traces weigh alike, whatever their lengths; inside a trace a window weighs as many tokens as it has.

    Raises:
        InputError: no trace, or traces of unlike models.
    """
    _check(sources, windows_per_trace)
    sizes = [np.diff(window_edges(trace, min(windows_per_trace, len(trace.seq_lens)))) for trace in sources]
    share = np.full(len(sources), 1.0 / len(sources))
    window_weight = np.concatenate([part * size / size.sum() for part, size in zip(share, sizes, strict=True)])
    tokens = np.concatenate(sizes)
    window = np.repeat(np.arange(len(tokens)), tokens)
    experts = sources[0].experts
    stretches = Stretches.of(sources, share)
    return tuple(
        _layer(
            np.concatenate([trace.topk_ids[layer] for trace in sources]),
            window,
            tokens,
            window_weight,
            stretches,
            experts,
        )
        for layer in range(sources[0].layers)
    )


def counts_statistics(counts: LoadCounts, top_k: int) -> tuple[LayerData, ...]:
    """Statistics of every MoE layer from load counts alone (`sets` is None); a window weighs the tokens it counted.

    Args:
        top_k: experts of a token, to scale the loads: a row of `load` sums to it.

    Raises:
        InputError: top_k is above the experts.
    """
    if not 1 <= top_k <= counts.experts:
        raise InputError(counts.name, "top_k", f"{top_k} of {counts.experts} experts", "use the model's own top_k")
    layers = []
    for layer in range(counts.layers):
        part = counts.counts[:, layer]
        total = part.sum(axis=1)
        layers.append(LayerData(part / total[:, None] * top_k, total / total.sum(), None))
    return tuple(layers)


def _layer(
    ids: NDArray[Any],
    window: IntArray,
    tokens: IntArray,
    window_weight: FloatArray,
    stretches: Stretches,
    experts: int,
) -> LayerData:
    windows, top_k = len(tokens), ids.shape[1]
    cell = np.repeat(window * experts, top_k) + ids.ravel()
    load = np.bincount(cell, minlength=windows * experts).reshape(windows, experts) / tokens[:, None]
    first, which, count = _distinct_rows(np.sort(ids, axis=1), experts)
    share = np.bincount(window * count + which, minlength=windows * count).reshape(windows, count) / tokens[:, None]
    sets = TokenSets(np.sort(ids[first], axis=1), share)
    # Kish's effective size of a sample: all tokens where windows weigh what they hold.
    size = 1.0 / float((window_weight**2 / tokens).sum())
    drift, comovement = stretches.covariance(ids, experts), stretches.correlation(ids, experts)
    return LayerData(load, window_weight, sets, drift, size, comovement)


def _distinct_rows(rows: NDArray[Any], experts: int) -> tuple[IntArray, IntArray, int]:
    """Of [tokens, k] rows: first token of each distinct row, in lexical order; [tokens] a row's number; how many."""
    bits = max(1, int(experts - 1).bit_length())
    per_key = 64 // bits
    keys = []
    for start in range(0, rows.shape[1], per_key):
        key = np.zeros(len(rows), dtype=np.uint64)
        for column in range(start, min(start + per_key, rows.shape[1])):
            key = (key << np.uint64(bits)) | rows[:, column].astype(np.uint64)
        keys.append(key)
    order = np.argsort(keys[0], kind="stable") if len(keys) == 1 else np.lexsort(keys[::-1])
    new = np.zeros(len(rows), dtype=bool)
    new[0] = True
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    which = np.empty(len(rows), dtype=np.int64)
    which[order] = np.cumsum(new) - 1
    return order[new], which, int(new.sum())


def _check(sources: Sequence[Trace], windows: int) -> None:
    if not sources:
        raise InputError("routing", "trace", "no trace was given", "give at least one")
    if windows < 1:
        raise InputError("routing", "windows", f"{windows} is not positive", "ask for at least one window")
    first = sources[0]
    for trace in sources[1:]:
        for name in ("experts", "layers", "top_k"):
            mine, other = getattr(trace, name), getattr(first, name)
            if mine != other:
                raise InputError(
                    trace.name, name, f"is {mine}, but {other} in {first.name}", "use traces of one model together"
                )
