"""What work and bytes cost in one MoE layer under a split: the prices that the layer scorer and the solvers use.

A rank below is an expert-parallel rank: `etp` GPUs that share its experts. With etp = 1 a rank is a GPU. The layer
problem's "GPUs" are ranks, its tokens those of a rank's GPUs together, its links theirs together.
"""

from __future__ import annotations

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.step.compute import Roofline
from placement.problem.engine_rules import prefill_tokens
from placement.problem.rates import LayerRates
from placement.problem.split import Split
from placement.problem.topology import Topology
from specs.fields import DataType, bytes_of
from specs.model import Model
from specs.parameters import expert_parameters
from specs.scenario import Scenario
from specs.workload import Phase


def message_bytes(model: Model, data_type: DataType, efficiency: Efficiency) -> float:
    """Bytes of one token's hidden state as sent: its elements, and a scale per block for fp8 and int8."""
    size = model.hidden * bytes_of(data_type)
    if data_type in ("fp8", "int8"):
        blocks = -(-model.hidden // int(efficiency.scale_block.value))
        size += blocks * efficiency.scale_bytes_per_block.value
    return size


def expert_bytes(model: Model) -> float:
    """Bytes of one expert's weights in one layer, over all GPUs that share it."""
    return expert_parameters(model) * bytes_of(model.types.experts)


def default_tokens_per_rank(scenario: Scenario, split: Split, phase: Phase) -> float:
    """Tokens of an expert-parallel rank in one pass of `phase`.

    decode: the sequences of a microbatch, spread over the attention rank's tp GPUs; prefill: the workload's
    prefill_tokens_per_gpu, as far as the engine's buffers go; train: a microbatch's tokens over the tp GPUs. Each for
    the rank's etp GPUs together. A training workload has one kind of pass, whatever `phase` says.
    """
    workload = scenario.workload
    if workload.kind == "training":
        return workload.microbatch * workload.sequence / split.tp * split.etp
    if phase == "decode":
        return split.batch / split.microbatches / split.tp * split.etp
    return prefill_tokens(scenario.engine, workload, split.tp) / split.tp * split.etp


def layer_rates(
    scenario: Scenario,
    split: Split,
    phase: Phase,
    tokens_per_gpu: float | None = None,
    efficiency: Efficiency | None = None,
) -> LayerRates:
    """The prices of one MoE layer.

    Args:
        phase: "prefill", "decode", or "train" (the forward pass of a microbatch).
        tokens_per_gpu: tokens of an expert-parallel rank; None takes default_tokens_per_rank.

    Raises:
        InputError: the GPU states no peak rate for the data type that experts are computed in.
    """
    constants = efficiency or efficiency_of(scenario)
    model, cluster = scenario.model, scenario.cluster
    roofline = Roofline.of(cluster.gpu, constants)
    parameters = expert_parameters(model) / split.etp
    tokens = default_tokens_per_rank(scenario, split, phase) if tokens_per_gpu is None else tokens_per_gpu
    return LayerRates(
        tokens_per_gpu=tokens,
        weight_s=parameters * bytes_of(model.types.experts) / roofline.expert_bytes_per_s,
        token_s=2.0 * parameters / roofline.expert_flops(model.types.compute),
        dispatch_bytes=message_bytes(model, scenario.dispatch_type, constants),
        combine_bytes=message_bytes(model, model.types.combine, constants),
        fast_bytes_per_s=cluster.fast.bytes_per_s * split.etp,
        slow_bytes_per_s=cluster.slow.bytes_per_s * split.etp,
        fast_latency_s=cluster.fast.latency_s,
        slow_latency_s=cluster.slow.latency_s,
        overlap=scenario.overlap_in_use,
    )


def topology_of(scenario: Scenario, split: Split) -> Topology:
    """The expert-parallel ranks of one stage on the nodes and trays they lie on.

    Raises:
        InputError: the ranks do not fill nodes.
    """
    cluster = scenario.cluster
    if split.gpus_per_stage <= cluster.gpus_per_node:
        return Topology(split.ep, split.ep, 1)
    return Topology(split.ep, cluster.gpus_per_node // split.etp, max(1, cluster.gpus_per_tray // split.etp))
