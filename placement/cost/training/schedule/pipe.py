"""What a pipeline's passes take and keep: the real, unequal pieces of a model under a split."""

from __future__ import annotations

from dataclasses import dataclass, replace

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.activations import KeptElements
from placement.cost.memory.hbm import MemoryModel
from placement.cost.memory.recompute import ModeCounts, mode_counts
from placement.cost.training.passes import PassSeconds
from placement.cost.training.step import TrainingModel
from placement.problem.pieces import StageShape
from placement.problem.schedule import pieces_of_rank
from placement.problem.split import Split
from specs.scenario import Scenario
from specs.workload import TrainingWorkload


@dataclass(frozen=True)
class Pipe:
    """A pipeline of unequal pieces.

    Attributes:
        passes: [pieces] seconds of a microbatch's passes, with messages inside the piece.
        transfer_s: [pieces - 1] hidden states from a piece to the next, or their gradients back.
        kept_bytes: [pieces] what a microbatch keeps from its forward pass to the end of its backward pass for inputs.
        operand_bytes: [pieces] what it keeps from there to the end of its weight pass.
        fixed_bytes: [devices] everything else: weights, states, buffers, one working set, reserve.
        capacity_bytes: HBM of a GPU.
        communication_share: of a GPU's multiprocessors, those that send and receive while two passes run at once.
    """

    passes: tuple[PassSeconds, ...]
    transfer_s: tuple[float, ...]
    kept_bytes: tuple[float, ...]
    operand_bytes: tuple[float, ...]
    fixed_bytes: tuple[float, ...]
    capacity_bytes: float
    communication_share: float = 0.0

    @property
    def pieces(self) -> int:
        return len(self.passes)

    def without_transfers(self) -> Pipe:
        """The same with transfers that take no time."""
        return replace(self, transfer_s=(0.0,) * len(self.transfer_s))


def pipe_of(scenario: Scenario, workload: TrainingWorkload, split: Split, efficiency: Efficiency | None = None) -> Pipe:
    """The pipeline of a split, cut for the workload's schedule; seconds and bytes are those of the scorer.

    A weight pass needs the operands of all products. So from the backward pass for inputs on, a microbatch keeps what
    recompute "none" keeps, whatever was kept before.
    """
    constants = efficiency or efficiency_of(scenario)
    training = TrainingModel(scenario, workload, split, constants)
    memory, layer, shapes = MemoryModel(scenario, split, constants), training.layer, training.shapes
    kept = KeptElements.of(scenario.model, split)
    tokens = float(workload.microbatch * workload.sequence)
    modes = mode_counts(scenario.model, workload, split, shapes)
    ranks = [pieces_of_rank(workload, split.pp, rank) for rank in range(split.pp)]
    return Pipe(
        passes=tuple(
            layer.layers(shape.counts) + layer.again(mode) + (layer.head if shape.last else PassSeconds())
            for shape, mode in zip(shapes, modes, strict=True)
        ),
        transfer_s=(layer.transfer.forward_messages_s,) * (len(shapes) - 1),
        kept_bytes=tuple(tokens * kept.bytes(mode) for mode in modes),
        operand_bytes=tuple(tokens * kept.bytes(_none(shape)) for shape in shapes),
        fixed_bytes=tuple(
            sum(memory.part_bytes(shapes[piece]) for piece in pieces) + memory.shared_bytes(shapes[pieces[-1]].last)
            for pieces in ranks
        ),
        capacity_bytes=memory.capacity_bytes,
        communication_share=training.training.communication_sms.value,
    )


def _none(shape: StageShape) -> ModeCounts:
    nothing = (0,) * len(shape.counts)
    return shape.counts, nothing, nothing
