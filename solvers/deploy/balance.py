"""What balance and traffic expert placement reaches under a split: a quick placement of a few layers, remembered."""

from __future__ import annotations

from dataclasses import replace

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.layer.balanced import BalancedLayer
from placement.cost.layer.dispatch import alike_homes
from placement.cost.layer.scenario_rates import layer_rates, topology_of
from placement.cost.layer.score import Served, layer_seconds, served
from placement.cost.pose import layer_problems
from placement.cost.step.throughput import MoeTimes
from placement.errors import InputError
from placement.problem.data import LayerData
from placement.problem.engine_rules import message_rule
from placement.problem.layer import LayerProblem
from placement.problem.split import Split
from solvers.base import UnsupportedError
from solvers.dispatch import needs_fractions
from solvers.experts.heuristics.eplb import EplbSolver
from specs.scenario import Scenario
from specs.workload import Phase

#: Layers that are placed, spread evenly over the model's.
SAMPLED = 2


class PlacedLayers:
    """Times of placed MoE layers over the balanced estimate, by split; the load balancer places, in milliseconds.

    Taken at the workload's tokens in flight, used at any batch: imbalance and nodes touched don't depend on it.
    """

    def __init__(self, statistics: tuple[LayerData, ...]) -> None:
        step = max(1, len(statistics) // SAMPLED)
        self.statistics = statistics[step // 2 :: step][:SAMPLED]
        self._known: dict[tuple[str, int, int, int, int, str, str], MoeTimes] = {}
        #: What the balancer's placements of a layer make of its routing: that does not hang on rates.
        self._served: dict[tuple[object, ...], tuple[Served, ...]] = {}

    def __call__(self, scenario: Scenario, split: Split) -> MoeTimes:
        """The ratios of a split; 1 where a single rank holds all experts."""
        if split.ep == 1:
            return MoeTimes()
        key = (
            scenario.cluster.name, split.ep, split.etp, split.gpus_per_stage, split.redundant,
            message_rule(scenario, split, "prefill"), message_rule(scenario, split, "decode"),
        )  # fmt: skip
        if key not in self._known:
            self._known[key] = MoeTimes(
                prefill_ratio=self._ratio(scenario, split, "prefill"),
                decode_ratio=self._ratio(scenario, split, "decode"),
            )
        return self._known[key]

    def _ratio(self, scenario: Scenario, split: Split, phase: Phase) -> float:
        workload = scenario.workload
        if workload.kind != "serving":
            return 1.0
        per_gpu = workload.decode_tokens_per_gpu if phase == "decode" else workload.prefill_tokens_per_gpu
        # One microbatch in flight: the split's depth does not count here.
        flat = replace(split, pp=1, batch=max(1, per_gpu * split.tp), microbatches=1)
        try:
            problems = layer_problems(scenario, flat, phase, self.statistics)
            times = [self._seconds(layer, problem) for layer, problem in enumerate(problems)]
        except (UnsupportedError, InputError):
            return 1.0
        model = scenario.model.moe
        balanced = BalancedLayer.of(
            layer_rates(scenario, flat, phase), topology_of(scenario, flat), flat.slots_per_gpu, model.experts,
            model.computed_top_k, message_rule(scenario, flat, phase), efficiency_of(scenario).routing_shape.value,
        )  # fmt: skip
        return sum(times) / len(times) / balanced.seconds(problems[0].hardware.rates.tokens_per_gpu)

    def _seconds(self, layer: int, problem: LayerProblem) -> float:
        """Of a layer that the balancer places.

        Raises:
            UnsupportedError: the balancer can't keep the problem's groups.
        """
        if needs_fractions(problem):
            return EplbSolver().scored(problem).score.time_s
        hardware = problem.hardware
        speed = None if hardware.speed is None else hardware.speed.tobytes()
        key = (layer, hardware.topology, hardware.slots_per_gpu, speed)
        if key not in self._served:
            if not alike_homes(problem):
                # A row for each home: what other splits left would fill gigabytes.
                self._served = {known: each for known, each in self._served.items() if known[1:] == key[1:]}
            self._served[key] = tuple(served(problem, slots) for slots in EplbSolver().supported(problem))
        return min(layer_seconds(problem, each) for each in self._served[key])
