"""The time of a pipeline of microbatches under each schedule, in closed form (docs/cost-model.md, "Training")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from placement.cost.training.passes import PassSeconds
from placement.problem.schedule import is_bidirectional, piece_count, pieces_of_rank
from specs.workload import TrainingWorkload


@dataclass(frozen=True)
class PipelineTime:
    """Seconds of all microbatches of a step, means over the ranks; the parts sum to total_s.

    Attributes:
        forward_s, backward_s, weight_s: passes that run by themselves: forward; backward (for inputs, or whole);
            weight gradients that were put off.
        pair_s: forward and backward passes that run as one (DualPipe's F&B; else 0).
        idle_s: waiting, for the first and last microbatches and for slower ranks.
    """

    total_s: float
    forward_s: float
    backward_s: float
    weight_s: float
    pair_s: float
    idle_s: float


def pair_seconds(forward: PassSeconds, backward: PassSeconds, communication_share: float) -> float:
    """F&B: a forward pass through one piece and a whole backward pass through another as one, each one's messages
    beside the other's compute.

    `communication_share` of the GPU sends and receives meanwhile; the longer of compute and messages counts.
    """
    compute = forward.forward_s + backward.input_s + backward.weight_s
    messages = forward.forward_messages_s + backward.backward_messages_s
    return max(compute / (1.0 - communication_share), messages)


def pipeline_time(
    workload: TrainingWorkload,
    pp: int,
    microbatches: int,
    pieces: Sequence[PassSeconds],
    communication_share: float,
) -> PipelineTime:
    """Time of `microbatches` through `pieces` ([pieces] passes of one microbatch) on `pp` ranks."""
    if is_bidirectional(workload.schedule) and pp > 1:
        return _bidirectional(workload, pp, microbatches, pieces, communication_share)
    ranks = [sum_passes(pieces[i] for i in pieces_of_rank(workload, pp, rank)) for rank in range(pp)]
    serial = [rank.serial_s for rank in ranks]
    slowest, total = max(serial), sum(serial)
    if workload.schedule == "zb_h1":
        weights = sum(rank.weight_s for rank in ranks)
        time = microbatches * slowest + (pp - 1) / pp * max(0.0, total - 2 * weights)
    elif workload.schedule == "interleaved" and pp > 1:
        # Ranks run chunks of one index side by side, so the slowest of each index sets the pace.
        slowest = sum(max(pieces[chunk * pp + rank].serial_s for rank in range(pp)) for chunk in range(workload.chunks))
        time = microbatches * slowest + (total - slowest) / workload.chunks
    else:
        time = total + (microbatches - 1) * slowest
    every = sum_passes(ranks).times(microbatches / pp)
    put_off = every.weight_s if workload.schedule == "zb_h1" else 0.0
    forward = every.forward_s + every.forward_messages_s
    busy = every.serial_s
    return PipelineTime(time, forward, busy - forward - put_off, put_off, 0.0, time - busy)


def sum_passes(passes: Iterable[PassSeconds]) -> PassSeconds:
    """The passes one after the other."""
    total = PassSeconds()
    for each in passes:
        total += each
    return total


def _bidirectional(
    workload: TrainingWorkload, pp: int, microbatches: int, pieces: Sequence[PassSeconds], communication_share: float
) -> PipelineTime:
    """DualPipe over P pieces (an even number), by how many passes a rank runs in each way.

    With H = P/2, rank h from either end runs 3H - 1 - h forward and as many backward passes alone, H of these backward
    passes whole, and puts off 2H - 1 - h weight gradients (the order of DualPipe's published code). Means over the
    ranks are taken: (5H - 1) / 2, H and (3H - 1) / 2. A rank alternates between two pieces, whose mean counts.
    """
    depth = piece_count(workload, pp)
    half = depth // 2
    # DualPipe sends half of the microbatches from each end; DualPipe-V each microbatch down and up again.
    visits = microbatches if workload.schedule == "dualpipe" else 2 * microbatches
    alone = min((5 * half - 1) / 2, float(visits))
    put_off = min((3 * half - 1) / 2, alone)
    pairs = visits - alone
    busy, parts, turns = [], [], []
    for rank in range(pp):
        near, far = (pieces[i] for i in pieces_of_rank(workload, pp, rank))
        mean = (near + far).times(0.5)
        # A rank's pairs alternate: forward of the one piece with backward of the other.
        turns.append(tuple(pair_seconds(a, b, communication_share) / 2 for a, b in ((near, far), (far, near))))
        part = (
            alone * (mean.forward_s + mean.forward_messages_s),
            alone * (mean.input_s + mean.backward_messages_s) + (alone - put_off) * mean.weight_s,
            put_off * mean.weight_s,
            pairs * sum(turns[-1]),
        )
        backward = mean.input_s + mean.weight_s + mean.backward_messages_s
        parts.append((*part, sum(turns[-1]) + backward - 3 * mean.weight_s))
        busy.append(sum(part))
    means = [sum(column) / pp for column in zip(*parts, strict=True)]
    # Ranks run pairs of one kind side by side, so the slowest of each kind sets the pace.
    uneven = sum(max(column) for column in zip(*turns, strict=True)) - max(sum(turn) for turn in turns)
    time = max(busy) + pairs * uneven + (half - 1) * max(0.0, means[4])
    return PipelineTime(time, means[0], means[1], means[2], means[3], time - sum(busy) / pp)
