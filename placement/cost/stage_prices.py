"""The stage problem of a split, priced: what each kind of layer costs a rank, and what a rank has room for."""

from __future__ import annotations

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.activations import KeptElements
from placement.cost.memory.hbm import MemoryModel
from placement.cost.memory.recompute import MODES, ModeCounts, mode_of_workload
from placement.cost.step.pass_times import LayerTimes
from placement.cost.step.throughput import ServingModel
from placement.cost.training.passes import LayerPasses, PassSeconds
from placement.cost.training.step import TrainingModel
from placement.problem.pieces import StageShape
from placement.problem.schedule import in_flight, is_bidirectional, piece_count, pieces_of_rank
from placement.problem.split import Split
from placement.problem.stages import LayerKind, LayerOption, Member, StageProblem, side_by_side
from specs.blocks.run import Block
from specs.model import Model
from specs.scenario import Scenario
from specs.workload import Recompute, ServingWorkload, TrainingWorkload


def stage_problem(scenario: Scenario, split: Split, efficiency: Efficiency | None = None) -> StageProblem:
    """The stage problem of a split; its own cut and recompute choice are not used.

    Training: seconds are all passes of a microbatch, and the objective is the pipeline of the workload's schedule with
    ranks' times added up (cost.training.pipeline; of DualPipe, whose pairs hide messages, an estimate); the optimizer
    and the reduction of gradients are left to the scorer. Where the workload leaves recompute open, every mode is an
    option. Serving: seconds are those of a decode microbatch and of
    the share of prefill that goes with it, and only the slowest stage counts, since the sum is the same for all cuts.
    """
    constants = efficiency or efficiency_of(scenario)
    workload = scenario.workload
    if workload.kind == "training":
        return _training(scenario, workload, split, constants)
    return _serving(scenario, workload, split, constants)


def layer_kinds(model: Model) -> tuple[tuple[StageShape, ...], tuple[int, ...]]:
    """(Shapes of one layer of each kind, [layers] index of each layer's kind)."""
    count = len(model.kinds)
    shapes = (StageShape(tuple(int(i == kind) for i in range(count)), False, False) for kind in range(count))
    return tuple(shapes), model.kind_of_layer


def _name(block: Block) -> str:
    return " + ".join(name for name in (block.mixer, block.ffn) if name is not None)


def _modes(shape: StageShape, mode: Recompute) -> ModeCounts:
    none, selective, full = (shape.counts if mode == each else (0,) * len(shape.counts) for each in MODES)
    return none, selective, full


def _ends(memory: MemoryModel, pieces: int) -> tuple[float, ...]:
    """[pieces] bytes of embedding and head."""
    nothing = (0,) * len(memory.scenario.model.kinds)
    return tuple(
        memory.part_bytes(StageShape(nothing, piece == 0, piece == pieces - 1)) if piece in (0, pieces - 1) else 0.0
        for piece in range(pieces)
    )


def _training(scenario: Scenario, workload: TrainingWorkload, split: Split, constants: Efficiency) -> StageProblem:
    model, pp, m = scenario.model, split.pp, split.microbatches
    passes: LayerPasses = TrainingModel(scenario, workload, split, constants).layer
    memory, kept = MemoryModel(scenario, split, constants), KeptElements.of(model, split)
    shapes, layers = layer_kinds(model)
    modes = MODES if workload.recompute == "auto" else (mode_of_workload(workload),)
    tokens = float(workload.microbatch * workload.sequence)
    paired = is_bidirectional(workload.schedule) and pp > 1

    def seconds(part: PassSeconds) -> float:
        # Passes in pairs hide their messages.
        return part.compute_s if paired else part.serial_s

    def forward(part: PassSeconds) -> float:
        return part.forward_s if paired else part.forward_s + part.forward_messages_s

    def relief(part: PassSeconds) -> float:
        return 2 * part.weight_s if workload.schedule == "zb_h1" else 0.0

    def kind(shape: StageShape, block: Block) -> LayerKind:
        once = passes.layers(shape.counts)
        options = tuple(
            LayerOption(
                mode,
                seconds(once + passes.again(_modes(shape, mode))),
                forward(once),
                tokens * kept.bytes(_modes(shape, mode)),
            )
            for mode in modes
        )
        return LayerKind(_name(block), memory.part_bytes(shape), relief(once), options)

    pieces = piece_count(workload, pp)
    ends = [passes.head if piece == pieces - 1 else passes.transfer for piece in range(pieces)]
    ranks = tuple(pieces_of_rank(workload, pp, rank) for rank in range(pp))
    slowest_weight, total_weight = _weights(workload, pp, m)
    return StageProblem(
        kinds=tuple(map(kind, shapes, model.kinds)),
        layers=layers,
        ranks=ranks,
        turns=_turns(workload, pp, ranks),
        in_flight=tuple(in_flight(workload, pp, piece, m) for piece in range(pieces)),
        budget_bytes=tuple(memory.capacity_bytes - memory.shared_bytes(held[-1] == pieces - 1) for held in ranks),
        end_bytes=_ends(memory, pieces),
        end_s=tuple(seconds(end) for end in ends),
        end_forward_s=tuple(forward(end) for end in ends),
        end_relief_s=tuple(relief(end) for end in ends),
        slowest_weight=slowest_weight,
        total_weight=total_weight,
    )


def _turns(workload: TrainingWorkload, pp: int, ranks: tuple[tuple[int, ...], ...]) -> tuple[tuple[Member, ...], ...]:
    """Which passes run side by side, as placement.cost.training.pipeline counts them."""
    if pp == 1 or len(ranks[0]) == 1:
        return side_by_side(pp)
    if workload.schedule == "interleaved":
        return tuple(tuple(((chunk * pp + rank, "all"),) for rank in range(pp)) for chunk in range(workload.chunks))
    return (
        tuple(((near, "forward"), (far, "backward")) for near, far in ranks),
        tuple(((far, "forward"), (near, "backward")) for near, far in ranks),
    )


def _weights(workload: TrainingWorkload, pp: int, microbatches: int) -> tuple[float, float]:
    """Weights of the slowest rank and of the sum, as placement.cost.training.pipeline counts them."""
    if workload.schedule == "zb_h1":
        return float(microbatches), (pp - 1) / pp
    if workload.schedule == "interleaved" and pp > 1:
        return microbatches - 1 / workload.chunks, 1 / workload.chunks
    if is_bidirectional(workload.schedule) and pp > 1:
        visits = microbatches / 2 if workload.schedule == "dualpipe" else float(microbatches)
        return visits, 0.5
    return float(microbatches - 1), 1.0


def _serving(scenario: Scenario, workload: ServingWorkload, split: Split, constants: Efficiency) -> StageProblem:
    model, pp = scenario.model, split.pp
    serving = ServingModel(scenario, workload, split, None, constants)
    memory = MemoryModel(scenario, split, constants)
    # Per output token a rank decodes each of its microbatches once and prefills batch / OSL prompts.
    bunch = serving.bunch(split.batch)
    prompts = split.batch / workload.osl * serving.stall * constants.prefill_time.value
    steps = split.microbatches / workload.step_yield
    parts: tuple[tuple[float, LayerTimes], ...] = (
        (steps, serving.decode_times(split.batch)),
        (prompts * bunch.passes / bunch.prompts, serving.prefill_times(bunch.tokens)),
    )
    shapes, layers = layer_kinds(model)

    def kind(shape: StageShape, block: Block) -> LayerKind:
        # A layer by itself is no last stage: its transfer belongs to the stage.
        time = sum(weight * (times.stage_s(shape) - times.transfer) for weight, times in parts)
        return LayerKind(_name(block), memory.part_bytes(shape), 0.0, (LayerOption(None, time, time, 0.0),))

    last, inner = (sum(weight * getattr(times, name) for weight, times in parts) for name in ("head", "transfer"))
    last += steps * serving.draft_s(split.batch)
    shared = memory.capacity_bytes - memory.shared_bytes(False)
    return StageProblem(
        kinds=tuple(map(kind, shapes, model.kinds)),
        layers=layers,
        ranks=tuple((stage,) for stage in range(pp)),
        turns=side_by_side(pp),
        in_flight=(0,) * pp,
        budget_bytes=(*(shared,) * (pp - 1), memory.capacity_bytes - memory.shared_bytes(True)),
        end_bytes=_ends(memory, pp),
        end_s=(*(inner,) * (pp - 1), last),
        end_forward_s=(*(inner,) * (pp - 1), last),
        end_relief_s=(0.0,) * pp,
        slowest_weight=1.0,
        total_weight=0.0,
    )
