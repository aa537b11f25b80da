"""One MoE layer under uniform routing, in closed form: the estimate that a split is chosen by before any placement.

No bound on what a placement reaches: co-located experts touch fewer nodes, skewed ones load some GPUs more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.arithmetic import expm1, log1p
from placement.cost.layer.messages import MESSAGE_RULES
from placement.cost.layer.tariff import busiest_s, hop_latency_s
from placement.cost.layer.work import roofline_s
from placement.cost.step.kernels import KernelCurve
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from specs.engine import MessageRule as Name


def touch_chance(experts: int, top_k: int, parts: int) -> float:
    """Chance that a token with `top_k` distinct uniform experts has one in a part of `experts / parts` of them."""
    held, miss = experts / parts, 1.0
    for drawn in range(top_k):
        miss *= max(0.0, 1.0 - held / (experts - drawn))
    return 1.0 - miss


def balanced_messages(
    rule: Name, topology: Topology, top_k: int, on_gpu: float, on_node: float
) -> tuple[float, float, float]:
    """(Messages on a rank's fast link, on its slow link, tokens that reach it), for each token that a rank holds.

    Args:
        on_gpu: Chance that a token touches a given rank; on_node: a given node.
    """
    chosen, nodes, m = MESSAGE_RULES[rule], topology.nodes, topology.gpus_per_node

    def each(touched: float, bins: int) -> float:
        return float(chosen.per_token(np.array([touched]), np.array([top_k / bins]), np.ones(1))[0])

    gpu = each(on_gpu, topology.gpus)
    reach = max(on_gpu, gpu) if chosen.counts == "all" else on_gpu
    if chosen.forwards:
        return nodes * (m - 1) * gpu, (nodes - 1) * each(on_node, nodes), reach
    return (m - 1) * gpu, (topology.gpus - m) * gpu, reach


@dataclass(frozen=True)
class BalancedLayer:
    """A balanced layer, ready to be timed for any number of tokens per rank.

    Attributes:
        slots_per_gpu, slot_share: slots of a rank, and copies of one token that go to each of all slots.
        ranks: expert-parallel ranks.
        fast_messages, slow_messages: messages on a rank's fast and slow link for each token that a rank holds.
        reach: chance that a token touches a given rank.
        shape: of the gamma distribution that expert loads are drawn from, for the chance that a slot is touched.
        curve: measured times of the experts, in place of the roofline.
    """

    rates: LayerRates
    slots_per_gpu: int
    slot_share: float
    ranks: int
    fast_messages: float
    slow_messages: float
    reach: float
    latency_s: float
    shape: float
    curve: KernelCurve | None = None

    @classmethod
    def of(
        cls,
        rates: LayerRates,
        topology: Topology,
        slots_per_gpu: int,
        experts: int,
        top_k: int,
        rule: Name,
        shape: float,
    ) -> BalancedLayer:
        """The balanced layer of a split; `rates.tokens_per_gpu` is not used."""
        ranks, nodes = topology.gpus, topology.nodes
        reach = touch_chance(experts, top_k, ranks)
        fast, slow, reach = balanced_messages(rule, topology, top_k, reach, touch_chance(experts, top_k, nodes))
        return cls(
            rates=rates,
            slots_per_gpu=slots_per_gpu,
            slot_share=top_k / (ranks * slots_per_gpu),
            ranks=ranks,
            fast_messages=fast,
            slow_messages=slow,
            reach=reach,
            latency_s=hop_latency_s(rates, topology),
            shape=shape,
        )

    def experts_s(self, tokens_per_rank: float) -> float:
        """Seconds of a rank's experts: for each slot the larger of reading its weights if touched and multiplying.

        Tokens at a slot are a Poisson count whose mean varies between experts by a gamma distribution: a negative
        binomial count, which is 0 with chance (1 + mean / shape) ** -shape. A few hot experts leave others untouched.
        """
        if self.curve is not None:
            return self.curve.at(tokens_per_rank * self.ranks)
        at_slot = tokens_per_rank * self.ranks * self.slot_share
        touched = -float(expm1(-self.shape * log1p(at_slot / self.shape)))
        return self.slots_per_gpu * float(roofline_s(self.rates, touched, at_slot))

    def messages_s(self, tokens_per_rank: float) -> float:
        """Seconds of dispatch and combine together."""
        rates = self.rates
        link_s = float(busiest_s(rates, self.fast_messages, self.slow_messages))
        return 2 * self.latency_s + rates.both_bytes * link_s * tokens_per_rank

    def seconds(self, tokens_per_rank: float) -> float:
        """Seconds of the layer: dispatch, experts and combine, or the longer where they overlap."""
        experts, messages = self.experts_s(tokens_per_rank), self.messages_s(tokens_per_rank)
        return max(experts, messages) if self.rates.overlap == "two_batch" else experts + messages

    def received(self, tokens_per_rank: float) -> float:
        """Distinct tokens that reach a rank, its own included."""
        return tokens_per_rank * self.ranks * self.reach
