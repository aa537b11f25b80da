"""Kinds of instances as a simulation prices them: tables of decode steps and prefill passes, and what a rank holds.

A server is what takes one prompt at a time: an attention rank, or `cp` ranks of a prefill instance that share prompts.
Ranks of an instance are simulated by themselves. How long the others' prefills hold a rank up is the closed form's
factor (`rank_stall`, docs/cost-model.md, "Serving"), as are its corrections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.hbm import MemoryModel
from placement.cost.memory.local import stored_bytes, total_of
from placement.cost.serving_sim.lengths import Lengths
from placement.cost.step.pass_times import PassModel
from placement.cost.step.roles import (
    InstancePoint,
    Role,
    aggregated_point,
    decode_point,
    kv_bytes_per_request,
    prefill_point,
    shared_pass,
    transfer_bytes_per_s,
)
from placement.cost.step.throughput import MoeTimes, ServingModel
from placement.errors import InputError
from placement.problem.arrays import FloatArray
from placement.problem.engine_rules import most_sequences
from placement.problem.pieces import stage_shapes
from placement.problem.split import Split
from specs.scenario import Scenario
from specs.workload import ServingWorkload

#: Decode steps of up to this many sequences are priced one by one; above, every twentieth larger, and interpolated.
EXACT_BATCHES = 64
#: Passes are priced at so many equal steps of the budget.
PASS_STEPS = 64


@dataclass(frozen=True)
class InstanceKind:
    """Instances that are alike.

    Attributes:
        role: what they serve of a request.
        scenario: a serving scenario on the cluster that they run in.
        split: of one instance; its batch is what the plan expects of a rank, not a limit.
        count: how many.
        cp: attention ranks that share a prompt (prefill).
        moe: times of placed MoE layers; None: balanced.
    """

    role: Role
    scenario: Scenario
    split: Split
    count: int
    cp: int = 1
    moe: MoeTimes | None = None

    @property
    def servers(self) -> int:
        """Attention ranks, or groups of them that share prompts."""
        return self.count * (self.split.dp // self.cp)

    @property
    def gpus(self) -> int:
        """GPUs of all of them."""
        return self.count * self.split.gpus_per_instance

    @cached_property
    def workload(self) -> ServingWorkload:
        """The scenario's.

        Raises:
            InputError: it is training.
        """
        workload = self.scenario.workload
        if workload.kind != "serving":
            raise InputError(self.scenario.name, "workload", "is training; only serving is simulated", "use solve")
        return workload

    @cached_property
    def model(self) -> ServingModel:
        """Prices of its passes, with times of placed MoE layers at any batch."""
        split, constants = replace(self.split, instances=1), efficiency_of(self.scenario)
        passes = PassModel(self.scenario, split, constants)
        model = ServingModel(self.scenario, self.workload, split, self.moe, constants, passes)
        if model.moe.decode_s is None:
            return model
        # Scored at the planned batch: at another it keeps its ratio to the balanced estimate.
        tokens = split.batch / split.microbatches * self.workload.step_tokens
        ratio = model.moe.decode_s / model.passes.moe_s(tokens, "decode")
        moe = replace(model.moe, decode_s=None, decode_ratio=ratio)
        return ServingModel(self.scenario, self.workload, split, moe, constants, passes)

    @cached_property
    def point(self) -> InstancePoint:
        """What one instance yields by the closed form, at the planned batch; no requests/s where prompts miss TTFT."""
        if self.role == "aggregated":
            return aggregated_point(self.model, self.split.batch)
        if self.role == "decode":
            return decode_point(self.model, self.split.batch)
        return prefill_point(self.model, self.workload.ttft_ms * 1e-3, self.cp) or InstancePoint(0.0, None, None)

    def of_length(self, isl: int, osl: int) -> ServingModel:
        """Prices for requests of other lengths."""
        workload, model = self.workload.model_copy(update={"isl": isl, "osl": osl}), self.model
        return ServingModel(self.scenario, workload, model.split, model.moe, model.efficiency, model.passes)

    @cached_property
    def most(self) -> int:
        """Requests of the workload's lengths that a rank holds at once: what KV cache, engine and scheduler take."""
        if self.role == "prefill":
            return 1
        memory = MemoryModel(self.scenario, self.model.split, self.model.efficiency)
        low, high = 0, self.slots + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if memory.total_bytes(middle) <= memory.capacity_bytes else (low, middle)
        return max(low, self.split.batch)

    @cached_property
    def slots(self) -> int:
        """Sequences of any length that a rank's scheduler takes."""
        limit = int(self.model.efficiency.max_sequences_per_rank.value)
        return min(limit, most_sequences(self.scenario, self.split.tp, self.split.pp) or limit)

    def stored(self, tokens: FloatArray) -> FloatArray:
        """KV cache of sequences of so many tokens, in those of the workload's requests at their full length."""
        workload = self.workload
        return self._kept(tokens) / self._kept(np.array([workload.isl + workload.osl], dtype=np.float64))

    def moved(self, prompts: FloatArray) -> FloatArray:
        """KV cache that prompts of so many tokens leave behind, in those of the workload's."""
        return self._kept(prompts) / self._kept(np.array([self.workload.isl], dtype=np.float64))

    def _kept(self, tokens: FloatArray) -> FloatArray:
        model = self.scenario.model
        (shape,) = stage_shapes(model, 1)
        lengths, where = np.unique(tokens, return_inverse=True)
        grid = lengths if len(lengths) <= PASS_STEPS else np.linspace(lengths[0], lengths[-1], PASS_STEPS)
        kept = [total_of(stored_bytes(model, float(length), self.split.tp), shape.counts) for length in grid]
        return np.asarray(np.interp(lengths, grid, kept)[where], dtype=np.float64)

    @cached_property
    def transfer_s(self) -> float:
        """Seconds that the KV cache of one of the workload's prompts takes the links of a server."""
        gpus = self.split.tp * self.split.pp * self.cp
        return kv_bytes_per_request(self.scenario) / (gpus * transfer_bytes_per_s(self.scenario.cluster))

    def decode_table(self, lengths: Lengths) -> FloatArray:
        """[contexts, slots + 1] seconds of a decode step of so many sequences of such contexts."""
        sizes, batch = [1], 1
        while batch < self.slots:
            batch = min(self.slots, batch + max(1, batch // 20 if batch >= EXACT_BATCHES else 1))
            sizes.append(batch)
        every, rows = np.arange(self.slots + 1), []
        for isl, osl in lengths.contexts:
            model = self.of_length(isl, osl)
            rows.append(np.interp(every, sizes, [model.decode_step_s(size) for size in sizes]))
        return np.array(rows)

    def pass_tables(self, lengths: Lengths) -> tuple[FloatArray, FloatArray]:
        """[prompt lengths, PASS_STEPS + 1] seconds of passes up to the budget: a server's own, and over all stages."""
        tokens = np.linspace(0.0, self.model.budget, PASS_STEPS + 1)[1:]
        own, whole = [], []
        for isl in lengths.prompts:
            model = self.of_length(isl, self.workload.osl)
            passes = [shared_pass(model, float(count), self.cp) for count in tokens]
            own.append([0.0, *(each.slowest_s for each in passes)])
            whole.append([0.0, *(each.stages_s for each in passes)])
        return np.array(own), np.array(whole)
