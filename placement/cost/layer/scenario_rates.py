"""What work and bytes cost in one MoE layer under a split: the prices that the layer scorer and the solvers use.

A rank below is an expert-parallel rank: `etp` GPUs that share its experts. With etp = 1 a rank is a GPU. The layer
problem's "GPUs" are ranks, its tokens those of a rank's GPUs together, its links theirs together.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.layer.work import slot_times
from placement.cost.step.compute import Roofline
from placement.problem.arrays import FloatArray
from placement.problem.engine_rules import prefill_tokens
from placement.problem.rates import LayerRates
from placement.problem.split import Split, gpus_filled
from placement.problem.topology import Topology
from specs.blocks.ffn import Moe
from specs.blocks.run import Block
from specs.cluster import Gpu
from specs.fields import DataType, bytes_of
from specs.model import Model
from specs.model_common import DataTypes
from specs.parameters import expert_type
from specs.scenario import Scenario
from specs.workload import Phase


def message_bytes(width: int, data_type: DataType, efficiency: Efficiency) -> float:
    """Bytes of one token's state of `width` elements as sent: with a scale per block for fp8 and int8."""
    size = width * bytes_of(data_type)
    if data_type in ("fp8", "int8"):
        blocks = -(-width // int(efficiency.scale_block.value))
        size += blocks * efficiency.scale_bytes_per_block.value
    return size


def expert_bytes(model: Model, block: Block) -> float:
    """Bytes of one expert's weights in one layer of that kind, over all GPUs that share it."""
    moe = model.moe_of(block)
    return 0.0 if moe is None else moe.expert_elements(model.hidden) * bytes_of(expert_type(model, block))


def compute_type(types: DataTypes, stored: DataType) -> DataType:
    """What experts stored in that type are multiplied in: those left unquantized in their own."""
    return types.multiplied if stored == types.experts or bytes_of(stored) < 2 else stored


def default_tokens_per_rank(scenario: Scenario, split: Split, phase: Phase) -> float:
    """Tokens of an expert-parallel rank in one pass of `phase`.

    decode: the tokens of a microbatch's sequences, spread over the attention rank's tp GPUs; prefill: the workload's
    prefill_tokens_per_gpu, as far as the engine's buffers go; train: a microbatch's tokens over the tp GPUs. Each for
    the rank's etp GPUs together. A training workload has one kind of pass, whatever `phase` says.
    """
    workload = scenario.workload
    if workload.kind == "training":
        return workload.microbatch * workload.sequence / split.tp * split.etp
    if phase == "decode":
        return split.batch / split.microbatches / split.tp * split.etp * workload.step_tokens
    return prefill_tokens(scenario, workload, split.tp) / split.tp * split.etp


def layer_rates(
    scenario: Scenario,
    split: Split,
    phase: Phase,
    tokens_per_gpu: float | None = None,
    efficiency: Efficiency | None = None,
    block: Block | None = None,
) -> LayerRates:
    """The prices of one MoE layer.

    Args:
        block: the kind of layer; None takes Model.moe_block.
        phase: "prefill", "decode", or "train" (the forward pass of a microbatch).
        tokens_per_gpu: tokens of an expert-parallel rank; None takes default_tokens_per_rank.

    Raises:
        InputError: the GPU states no peak rate for the data type that experts are computed in.
    """
    constants = efficiency or efficiency_of(scenario)
    model, cluster = scenario.model, scenario.cluster
    roofline = Roofline.of(cluster.least_gpu, constants)
    block = block or model.moe_block
    moe, stored = model.moe_of(block) or model.moe, expert_type(model, block)
    parameters = moe.expert_elements(model.hidden) / split.etp
    sent = moe.sent_width(model.hidden)
    tokens = default_tokens_per_rank(scenario, split, phase) if tokens_per_gpu is None else tokens_per_gpu
    fast = cluster.inside(min(split.gpus_per_stage, cluster.gpus_per_node))
    return LayerRates(
        tokens_per_gpu=tokens,
        weight_s=parameters * bytes_of(stored) / roofline.expert_bytes_per_s,
        token_s=2.0 * parameters / roofline.expert_flops(compute_type(scenario.types, stored)),
        dispatch_bytes=message_bytes(sent, scenario.dispatch_type, constants),
        combine_bytes=message_bytes(sent, model.types.combine, constants),
        fast_bytes_per_s=fast.bytes_per_s * split.etp,
        slow_bytes_per_s=cluster.slow.bytes_per_s * split.etp,
        fast_latency_s=fast.latency_s,
        slow_latency_s=cluster.slow.latency_s,
        overlap=scenario.overlap_in_use,
    )


def rank_speeds(
    scenario: Scenario, split: Split, rates: LayerRates, moe: Moe | None = None, slots: int | None = None
) -> FloatArray | None:
    """[ranks] rate of expert work relative to `rates` (those of the cluster's `least_gpu`); None where all are alike.

    `moe` are the layer's experts, `slots` those of a rank; None takes Model.moe, and the split's.

    All stages of all instances have one placement, so a rank is as fast as the slowest GPU at its place in any of them.
    Speeds are those at balanced loads.
    """
    cluster, model = scenario.cluster, scenario.model
    if not cluster.other_nodes:
        return None
    moe = moe or model.moe
    tokens = np.array(rates.tokens_per_gpu * moe.computed_top_k / (slots or split.slots_per_gpu))
    least, compute = Roofline.of(cluster.least_gpu, efficiency_of(scenario)), scenario.types.multiplied

    def speed(gpu: Gpu) -> float:
        own = Roofline.of(gpu, least.efficiency)
        read = least.expert_bytes_per_s / own.expert_bytes_per_s
        multiply = least.expert_flops(compute) / own.expert_flops(compute)
        mine = replace(rates, weight_s=rates.weight_s * read, token_s=rates.token_s * multiply)
        return float(slot_times(tokens, rates).sum() / slot_times(tokens, mine).sum())

    of_node = np.array([speed(cluster.kind_of_node(node)) for node in range(cluster.nodes)])
    of_gpu = of_node.repeat(gpus_filled(cluster, split.gpus_per_stage, split.pp))[: split.gpus]
    speeds = of_gpu.reshape(-1, split.ep, split.etp).min(axis=(0, 2))
    return None if (speeds == speeds[0]).all() else np.asarray(speeds)


def topology_of(scenario: Scenario, split: Split) -> Topology:
    """The expert-parallel ranks of one stage on the nodes and trays they lie on.

    Raises:
        InputError: the ranks do not fill nodes.
    """
    cluster = scenario.cluster
    ranks, tray = cluster.gpus_per_node // split.etp, max(1, cluster.gpus_per_tray // split.etp)
    if split.gpus_per_stage <= cluster.gpus_per_node:
        ranks, tray = split.ep, 1
    # SGLang's own count (eplb/expert_location.py): the group's ranks over the OS nodes of all stages.
    os_nodes = -(-split.gpus_per_instance // cluster.os_node_gpus)
    return Topology(split.ep, ranks, tray, math.gcd(max(1, split.ep // os_nodes), ranks))
