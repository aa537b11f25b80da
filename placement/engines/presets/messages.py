"""The messages of one MoE layer of an instance under uniform routing, at the prices of the tariff."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.layer.balanced import balanced_messages, touch_chance
from placement.cost.layer.scenario_rates import layer_rates, topology_of
from placement.cost.layer.tariff import busiest_s, hop_latency_s
from placement.engines.presets.served import Served
from placement.problem.engine_rules import message_rule, role_phases
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from specs.engine import MessageRule
from specs.workload import Phase


@dataclass(frozen=True)
class Messages:
    """What a GPU sends in the dispatch or the combine of one MoE layer; as much comes in.

    Attributes:
        phase: Of the pass. rule: What a token is sent once per.
        rates: Prices, and tokens of a GPU in a pass. topology: The expert-parallel ranks on their nodes.
        fast, slow: Messages on a GPU's fast link and on its part of the slow one, for each token that it holds.
        reach: Chance that a token goes to a given GPU.
    """

    phase: Phase
    rule: MessageRule
    rates: LayerRates
    topology: Topology
    fast: float
    slow: float
    reach: float

    @property
    def tokens(self) -> float:
        """Tokens of a GPU in a pass."""
        return self.rates.tokens_per_gpu

    @property
    def peer_bytes(self) -> float:
        """Bytes of a dispatch from one GPU to another."""
        return self.tokens * self.reach * self.rates.dispatch_bytes

    @property
    def fast_bytes(self) -> float:
        """Bytes of a dispatch on a GPU's fast link."""
        return self.tokens * self.fast * self.rates.dispatch_bytes

    @property
    def slow_bytes(self) -> float:
        """Bytes of a dispatch on a GPU's part of the slow link."""
        return self.tokens * self.slow * self.rates.dispatch_bytes

    @property
    def latency_s(self) -> float:
        """Seconds before the first byte."""
        return hop_latency_s(self.rates, self.topology)

    def seconds(self, token_bytes: float) -> float:
        """Seconds of a dispatch or combine whose messages have that many bytes."""
        link_s = float(busiest_s(self.rates, self.fast, self.slow))
        return self.latency_s + self.tokens * token_bytes * link_s

    @property
    def dispatch_s(self) -> float:
        """Seconds of a dispatch."""
        return self.seconds(self.rates.dispatch_bytes)

    @property
    def combine_s(self) -> float:
        """Seconds of a combine."""
        return self.seconds(self.rates.combine_bytes)

    def even_exchange_s(self, gpu_bytes: float) -> float:
        """Seconds in which every GPU sends `gpu_bytes`, spread evenly over all GPUs, itself among them."""
        gpus, inside = self.topology.gpus, self.topology.gpus_per_node
        each = gpu_bytes / gpus
        link_s = float(busiest_s(self.rates, (inside - 1) * each, (gpus - inside) * each))
        return self.latency_s + link_s

    def gather_s(self, all_bytes: float) -> float:
        """Seconds in which every GPU gets the parts of all others, `all_bytes` together; over each node once."""
        gpus, inside, nodes = self.topology.gpus, self.topology.gpus_per_node, self.topology.nodes
        each = all_bytes / gpus
        return self.latency_s + float(busiest_s(self.rates, nodes * (inside - 1) * each, (nodes - 1) * each))


def messages_of(served: Served) -> tuple[Messages, ...]:
    """The messages of each phase that the instance serves; none without expert parallelism."""
    scenario, split = served.scenario, served.split
    if split.ep == 1:
        return ()
    moe, topology = scenario.model.moe, topology_of(scenario, split)
    found = []
    for phase in role_phases(scenario, served.serves):
        rule, rates = message_rule(scenario, split, phase), layer_rates(scenario, split, phase)
        chance = touch_chance(moe.experts, moe.top_k, topology.gpus)
        on_node = touch_chance(moe.experts, moe.top_k, topology.nodes)
        fast, slow, reach = balanced_messages(rule, topology, moe.top_k, chance, on_node)
        found.append(Messages(phase, rule, rates, topology, fast, slow, reach))
    return tuple(found)
