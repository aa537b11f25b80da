"""Seeded synthetic routing for models without a recording: a latent-topic model, calibrated to recorded traces.

docs/routing.md has the model and the fit. An expert's logit for a token is

    bias[e] + strength * (owns(topic of the word, e) + context_strength * owns(topic of the passage, e)) + noise,

with Gumbel noise, part of which is fixed for the word; biases are found so that loads follow a lognormal profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from placement.arithmetic import exp, log, power
from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray
from placement.routing.constants import CALIBRATION, Calibration
from placement.routing.router import Logits, choose, copies_per_token
from placement.routing.trace import Trace

#: Largest number of ids a synthetic trace may hold (layers x tokens x top_k).
MAX_IDS = 2**31
#: Tokens that biases are fitted on, and that are routed at a time.
_CHUNK = 8192
#: Rounds of bias fitting on an eighth of the tokens, then on all, until the largest load is this near to its target.
_COARSE_ROUNDS, _FINE_ROUNDS, _NEAR = 7, 12, 0.02


@dataclass(frozen=True)
class _Text:
    """Latent text: [tokens] topic of each word, topic of its passage, word; [sequences] lengths."""

    topic: IntArray
    passage: IntArray
    word: IntArray
    seq_lens: IntArray
    topics: int


def synthesize(
    layers: int,
    experts: int | Sequence[int],
    top_k: int,
    tokens: int,
    sequences: int,
    skew: float,
    coactivation: float,
    seed: int,
    groups: int = 1,
    top_groups: int = 1,
    model_name: str = "",
    workers: int = 1,
) -> Trace:
    """A synthetic trace; the same arguments give the same trace.

    Args:
        layers, top_k: the model's MoE layers, experts per token.
        experts: logical experts of a layer; a list where layers differ.
        tokens, sequences: size of the trace.
        skew: largest over mean expert load of a layer, averaged over layers. Where that would give one expert more
            than 75% of the tokens (few experts), the highest skew below that is used and `source` says so.
        coactivation: 0: experts fire independently of each other; 1: as strongly together as recorded; up to 2.
        seed: of every random choice.
        groups, top_groups: group-limited routing: a token's experts lie in at most `top_groups` of `groups` groups.
        workers: threads that make layers. No influence on the trace.

    Returns:
        Trace whose `source` starts with "synthetic" and names the knobs.

    Raises:
        InputError: a size or knob that is impossible.
    """
    by_layer = [experts] * max(1, layers) if isinstance(experts, int) else list(experts)
    experts = max(by_layer)
    _check(layers, min(by_layer), top_k, tokens, sequences, skew, coactivation, groups, top_groups)
    calibration = CALIBRATION
    reached_skew = max(1.0, min(skew, calibration.largest_share * experts / top_k))
    rng = np.random.default_rng(seed)
    text = _text(rng, experts, top_k, tokens, sequences, calibration)
    layer_skew = _layer_skews(rng, layers, reached_skew, experts / top_k, calibration)
    spread = 1.0 + calibration.strength_spread * _even_normal(rng, layers)
    # A root below 1 makes the knob's effect about even: nodes per token fall slowly while topics are faint.
    pull = float(np.sqrt(coactivation)) if coactivation < 1 else coactivation
    ids = np.empty((layers, tokens, top_k), dtype=np.min_scalar_type(experts - 1))

    def fill(layer: int, layer_rng: np.random.Generator) -> None:
        strength = calibration.strength * pull * max(0.0, float(spread[layer]))
        router = _Router(by_layer[layer], top_k, groups, top_groups)
        skewed = max(1.0, min(float(layer_skew[layer]), calibration.largest_share * router.experts / top_k))
        target = load_profile(layer_rng, router.experts, top_k, skewed)
        ids[layer] = _layer(layer_rng, text, router, target, strength, pull, calibration)

    with ThreadPoolExecutor(workers) as pool:
        # An interrupt cancels the layers that have not begun.
        for _ in pool.map(fill, range(layers), rng.spawn(layers)):
            pass
    knobs = {"skew": skew, "coactivation": coactivation, "seed": seed}
    said = f"{skew:g}" if reached_skew == skew else f"{reached_skew:g}, the most that {experts} experts allow"
    name = model_name or f"{experts} experts top-{top_k}"
    return Trace(
        topk_ids=ids,
        seq_lens=text.seq_lens,
        experts=experts,
        name=f"synthetic-{model_name}" if model_name else "synthetic",
        source=f"synthetic (skew {said}, co-activation {coactivation:g}, seed {seed}) for {name}",
        meta={"model": name, "moe_layers": layers, "experts": experts, "top_k": top_k, "synthetic": knobs},
    )


def load_profile(rng: np.random.Generator, experts: int, top_k: int, skew: float) -> FloatArray:
    """[experts] target loads (copies per token, sum top_k): lognormal, as recorded loads nearly are, with max/mean ==
    skew, in random order."""
    normal = rng.permutation(np.sort(rng.standard_normal(experts)))
    low, high = 0.0, 60.0 / max(1e-9, float(np.ptp(normal)))
    for _ in range(60):
        middle = (low + high) / 2
        weight = exp(middle * (normal - normal.max()))
        low, high = (middle, high) if 1.0 / weight.mean() < skew else (low, middle)
    weight = exp(low * (normal - normal.max()))
    return np.asarray(weight / weight.sum() * top_k, dtype=np.float64)


@dataclass(frozen=True)
class _Router:
    """How a token's experts are chosen."""

    experts: int
    top_k: int
    groups: int
    top_groups: int

    def choose(self, logits: Logits, bias: Logits) -> IntArray:
        """[tokens, k] experts, most wanted first."""
        return choose(logits, bias, self.top_k, self.groups, self.top_groups)


def _layer(
    rng: np.random.Generator,
    text: _Text,
    router: _Router,
    target: FloatArray,
    strength: float,
    pull: float,
    constants: Calibration,
) -> IntArray:
    """[tokens, k] experts of one layer, most wanted first."""
    experts, tokens = router.experts, len(text.topic)
    owns = rng.permutation(np.arange(experts) % text.topics)[None, :] == np.arange(text.topics)[:, None]
    affinity = (strength * owns).astype(np.float32)
    word_part = np.float32(np.sqrt(constants.word_share * min(1.0, pull)))
    token_part = np.float32(np.sqrt(1.0 - word_part * word_part))
    # Short texts use few of the words: the others need no noise.
    words, word = np.arange(text.topics * constants.words_per_topic), text.word
    if tokens < len(words):
        words, word = np.unique(text.word, return_inverse=True)
    by_word = word_part * _gumbel(rng, (len(words), experts)) + affinity[words // constants.words_per_topic]
    by_passage = np.float32(constants.context_strength) * affinity

    def logits(rows: Any) -> Logits:
        out = _gumbel(rng, (len(word[rows]), experts))
        out *= token_part
        out += by_word[word[rows]]
        out += by_passage[text.passage[rows]]
        return out

    step = -(-tokens // _CHUNK)
    sample = logits(slice(None, None, step))
    bias, chosen = _fit_bias(router, sample, target)
    if step == 1:
        return chosen
    ids = np.empty((tokens, router.top_k), dtype=np.int64)
    for start in range(0, tokens, _CHUNK):
        rows = slice(start, start + _CHUNK)
        ids[rows] = router.choose(logits(rows), bias)
    return ids


def _fit_bias(router: _Router, logits: Logits, target: FloatArray) -> tuple[Logits, IntArray]:
    """[experts] biases under which the largest load is within _NEAR of its target, and the others close; the choices.

    Iterative scaling: a load that is too small by a factor raises its bias by the factor's logarithm.
    """
    bias = log(target).astype(np.float32)
    coarse = np.ascontiguousarray(logits[::8]) if len(logits) >= 2048 else logits
    for _ in range(_COARSE_ROUNDS):
        bias += _correction(copies_per_token(router.choose(coarse, bias), router.experts), target, len(coarse))
    chosen = router.choose(logits, bias)
    for _ in range(_FINE_ROUNDS):
        load = copies_per_token(chosen, router.experts)
        if abs(load.max() / target.max() - 1) < _NEAR:
            break
        bias += _correction(load, target, len(logits))
        chosen = router.choose(logits, bias)
    return bias, chosen


def _correction(load: FloatArray, target: FloatArray, tokens: int) -> Logits:
    return np.asarray(log(target / np.maximum(load, 0.5 / tokens)), dtype=np.float32)


def _gumbel(rng: np.random.Generator, shape: tuple[int, int]) -> Logits:
    draw = rng.standard_exponential(shape, dtype=np.float32)
    np.maximum(draw, np.float32(1e-30), out=draw)
    return np.asarray(-log(draw.astype(np.float64)), dtype=np.float32)


def _even_normal(rng: np.random.Generator, count: int) -> FloatArray:
    """`count` normal quantiles of mean 0 and deviation 1 in random order: as spread as asked, whatever the seed."""
    if count == 1:
        return np.zeros(1)
    # Quantiles of the logistic distribution, near enough to normal and without a special function.
    level = (np.arange(count) + 0.5) / count
    value = log(level / (1 - level))
    return np.asarray(rng.permutation(value / value.std()))


def _layer_skews(rng: np.random.Generator, layers: int, skew: float, most: float, constants: Calibration) -> FloatArray:
    """[layers] max/mean load of each layer: mean `skew`, spread as recorded as far as the limits allow."""
    excess = exp(constants.skew_spread * _even_normal(rng, layers))
    excess /= excess.mean()
    room = (most * constants.largest_share - skew) / max(1e-9, (skew - 1.0) * (excess.max() - 1.0))
    return np.asarray(1.0 + (skew - 1.0) * (1.0 + min(1.0, max(0.0, room)) * (excess - 1.0)))


def _text(
    rng: np.random.Generator, experts: int, top_k: int, tokens: int, sequences: int, constants: Calibration
) -> _Text:
    topics = int(np.clip(round(experts / (constants.topic_experts_per_k * top_k)), 2, 64))
    share = exp(0.3 * rng.standard_normal(sequences))
    ends = np.arange(1, sequences + 1) + np.floor(np.cumsum(share) / share.sum() * (tokens - sequences) + 1e-6)
    seq_lens = np.diff(ends, prepend=0).astype(np.int64)
    seq_lens[-1] += tokens - seq_lens.sum()
    mixture = rng.dirichlet(np.full(topics, constants.sequence_concentration / topics), sequences)
    # Compared with levels alone: a last bit that a C library rounds otherwise moves no word.
    cumulative = np.cumsum(mixture, axis=1)
    sequence = np.repeat(np.arange(sequences), seq_lens)

    def draw() -> IntArray:
        level = rng.random(tokens)
        return np.asarray(np.minimum((cumulative[sequence] < level[:, None]).sum(axis=1), topics - 1))

    fresh = rng.random(tokens) >= constants.stay
    fresh[np.cumsum(seq_lens)[:-1]] = True
    fresh[0] = True
    passage = draw()[np.maximum.accumulate(np.where(fresh, np.arange(tokens), 0))]
    topic = np.where(rng.random(tokens) < constants.follow, passage, draw())
    rank = power(np.arange(1, constants.words_per_topic + 1), -constants.zipf_exponent)
    word = np.searchsorted(np.cumsum(rank) / rank.sum(), rng.random(tokens))
    word = np.minimum(word, constants.words_per_topic - 1) + topic * constants.words_per_topic
    return _Text(topic, passage, word, seq_lens, topics)


def _check(
    layers: int,
    experts: int,
    top_k: int,
    tokens: int,
    sequences: int,
    skew: float,
    coactivation: float,
    groups: int,
    top_groups: int,
) -> None:
    def refuse(field: str, problem: str, mend: str) -> None:
        raise InputError("synthetic routing", field, problem, mend)

    for name, value in (
        ("layers", layers), ("experts", experts), ("top_k", top_k), ("tokens", tokens), ("sequences", sequences),
        ("groups", groups), ("top_groups", top_groups),
    ):  # fmt: skip
        if value < 1:
            refuse(name, f"{value} is not positive", "give at least 1")
    if top_k > experts:
        refuse("top_k", f"{top_k} is more than the {experts} experts", "use at most all experts")
    if experts % groups:
        refuse("groups", f"{groups} does not divide {experts} experts", "use groups of equal size")
    if top_groups > groups or top_groups * (experts // groups) < top_k:
        refuse("top_groups", f"{top_groups} of {groups} groups do not hold {top_k} experts", "use more groups")
    if sequences > tokens:
        refuse("sequences", f"{sequences} sequences need more than {tokens} tokens", "use fewer sequences")
    if layers * tokens * top_k > MAX_IDS:
        refuse("tokens", f"{layers} layers x {tokens} tokens x top-{top_k} are too many ids", "use fewer tokens")
    if not (np.isfinite(skew) and skew >= 1):
        refuse("skew", f"{skew} is not a max/mean load", "give a number of at least 1")
    if not (np.isfinite(coactivation) and 0 <= coactivation <= 2):
        refuse("coactivation", f"{coactivation} is out of range", "give a number from 0 (independent) to 2")
