"""What recorded routing is like, layer by layer: skew, drift over windows, co-activation, whether it is degenerate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from placement.problem.arrays import FloatArray, IntArray
from placement.problem.data import LayerData, TokenSets
from placement.routing.parts import split_by_sequence
from placement.routing.statistics import counts_statistics, layer_statistics
from placement.routing.trace import LoadCounts, Trace

#: A layer is degenerate where one expert takes more than this share of its tokens.
DEGENERATE = 0.5
#: Least load of an expert that counts as another's partner, as a share of the largest.
_PARTNER_LOAD = 0.01


@dataclass(frozen=True)
class LayerPortrait:
    """One MoE layer.

    Attributes:
        layer: its number among the MoE layers. skew: largest over mean expert load.
        top_expert, top_share: the busiest expert, and the share of the tokens that it takes (None: top-k not known).
        idle: experts that no token took.
        moved, moved_most: share of the load that lies on other experts in the next window, mean and most over
            neighbouring windows; None of a single window. noise: what sampling so many tokens moves by itself.
        partner: how many times as often as by chance a token that takes an expert takes its closest partner, too;
            partners are chosen on the first half of the sequences, the figure is of the second. None where not known.
    """

    layer: int
    skew: float
    top_expert: int
    top_share: float | None
    idle: int
    moved: float | None
    moved_most: float | None
    noise: float | None
    partner: float | None


@dataclass(frozen=True)
class Locality:
    """Distinct nodes per token that placements without replicas reach, on the half of the sequences not solved on.

    Attributes:
        nodes: each of one GPU with as many experts. layers: how many were looked at.
        spread: by a load balancer. together: with experts that are used together on one node.
    """

    nodes: int
    layers: int
    spread: float
    together: float


@dataclass(frozen=True, repr=False)
class TraceReport:
    """What recorded routing is like.

    Attributes:
        name, origin: the file's stem, and where it comes from. kind: "trace" or "counts".
        layers: MoE layers. experts: a layer's. top_k: None: not known.
        tokens, sequences: None of counts. windows: that drift is told over.
        portraits: each layer's figures. load: [layers, experts] share of a layer's load.
        locality: None of counts, or where nothing can be held out.
        notes: what was left out, where the file is a recording and no trace.
    """

    name: str
    origin: str
    kind: str
    layers: int
    experts: int
    top_k: int | None
    tokens: int | None
    sequences: int | None
    windows: int
    portraits: tuple[LayerPortrait, ...]
    load: FloatArray = field(compare=False)
    locality: Locality | None = None
    notes: tuple[str, ...] = ()

    @property
    def degenerate(self) -> tuple[LayerPortrait, ...]:
        """Layers of which one expert takes over half of the tokens."""
        return tuple(each for each in self.portraits if each.top_share is not None and each.top_share > DEGENERATE)

    def __repr__(self) -> str:
        skew = sum(each.skew for each in self.portraits) / len(self.portraits)
        told = f", degenerate in {len(self.degenerate)}" if self.degenerate else ""
        return f"<TraceReport {self.name}: {self.layers} layers of {self.experts} experts, skew {skew:.2f}{told}>"


def portraits(routing: Trace | LoadCounts, windows: int, top_k: int | None) -> tuple[LayerPortrait, ...]:
    """Each MoE layer's figures.

    Args:
        windows: how many a trace is cut into (fewer where it has fewer sequences); counts bring their own.
        top_k: experts of a token, for counts; None: not known.
    """
    if isinstance(routing, LoadCounts):
        top_k = top_k or _said_top_k(routing)
        layers = counts_statistics(routing, 1)
        totals = [routing.counts[:, layer].sum(axis=1) for layer in range(routing.layers)]
        return tuple(
            _portrait(i, layer, total, 1, top_k) for i, (layer, total) in enumerate(zip(layers, totals, strict=True))
        )
    layers = layer_statistics([routing], min(windows, len(routing.seq_lens)))
    share = layers[0].window_weight
    found = [_portrait(i, layer, share * routing.tokens, routing.top_k, 1) for i, layer in enumerate(layers)]
    if len(routing.seq_lens) < 2:
        return tuple(found)
    halves = [layer_statistics([half]) for half in split_by_sequence(routing)]
    partners = [_partner(first, second) for first, second in zip(*halves, strict=True)]
    return tuple(replace(each, partner=partner) for each, partner in zip(found, partners, strict=True))


def loads(routing: Trace | LoadCounts) -> FloatArray:
    """[layers, experts] share of each layer's load."""
    if isinstance(routing, LoadCounts):
        total = routing.counts.sum(axis=0)
    else:
        total = np.array([np.bincount(ids.ravel(), minlength=routing.experts) for ids in routing.topk_ids], np.float64)
    return np.asarray(total / total.sum(axis=1, keepdims=True))


def nodes_per_token(sets: TokenSets, node_of: IntArray) -> float:
    """Distinct nodes that hold a token's experts, in the mean; node_of: [experts]."""
    nodes = np.sort(node_of[sets.ids], axis=1)
    distinct = 1 + (nodes[:, 1:] != nodes[:, :-1]).sum(axis=1)
    return float((sets.weight.mean(axis=0) * distinct).sum())


def _said_top_k(counts: LoadCounts) -> int | None:
    said = counts.meta.get("top_k")
    return said if type(said) is int and 1 <= said <= counts.experts else None


def _portrait(number: int, layer: LayerData, copies: FloatArray, row_sum: int, top_k: int | None) -> LayerPortrait:
    """One layer's figures, partners aside.

    Args:
        layer: its loads, a row of which sums to `row_sum`. copies: [windows] tokens (or choices) that a row averages.
        top_k: what `row_sum` still has to be multiplied with to give copies per token; None: not known.
    """
    load = layer.mean_load
    moved = noise = most = None
    if layer.windows > 1:
        share = layer.load / row_sum
        steps = np.abs(np.diff(share, axis=0)).sum(axis=1) / 2
        drawn = copies * row_sum
        spread = share[1:] * (1 - share[1:]) / drawn[1:, None] + share[:-1] * (1 - share[:-1]) / drawn[:-1, None]
        moved, most = float(steps.mean()), float(steps.max())
        # The mean of a normal deviate's size is sqrt(2 / pi) of its deviation.
        noise = float((np.sqrt(2 / np.pi * spread).sum(axis=1) / 2).mean())
    top = int(load.argmax())
    share_of_tokens = None if top_k is None else float(load[top]) * top_k
    return LayerPortrait(
        layer=number,
        skew=float(load.max() / load.mean()),
        top_expert=top,
        top_share=None if share_of_tokens is None else min(1.0, share_of_tokens),
        idle=int((load == 0).sum()),
        moved=moved,
        moved_most=most,
        noise=noise,
        partner=None,
    )


def _pairs(layer: LayerData) -> FloatArray:
    """[experts, experts] share of the tokens that take both experts."""
    if layer.sets is None:
        raise ValueError("a trace has sets")
    weight, ids = layer.sets.weight.mean(axis=0), layer.sets.ids
    out = np.zeros((layer.experts, layer.experts))
    for one in range(ids.shape[1]):
        for two in range(one + 1, ids.shape[1]):
            np.add.at(out, (ids[:, one], ids[:, two]), weight)
    return out + out.T


def _partner(first: LayerData, second: LayerData) -> float | None:
    """See LayerPortrait.partner; experts weigh as their load on the second half. None of one expert a token."""
    top_k = 0 if first.sets is None else first.sets.ids.shape[1]
    if top_k < 2:
        return None
    seen, chance = _pairs(first), np.outer(first.mean_load, first.mean_load)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = np.where(chance > 0, seen / chance, 0.0)
    # Of rare experts too few tokens tell: a partner has at least a hundredth of the largest load.
    lift[:, first.mean_load < _PARTNER_LOAD * first.mean_load.max()] = 0.0
    partner = lift.argmax(axis=1)
    rows = np.arange(first.experts)
    together = _pairs(second)[rows, partner]
    expected = second.mean_load * second.mean_load[partner] * (top_k - 1) / top_k
    known = expected > 0
    if not known.any():
        return None
    weight = second.mean_load[known] / second.mean_load[known].sum()
    return float((weight * together[known] / expected[known]).sum())
