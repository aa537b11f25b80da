"""Pipeline schedules by their counts: how the model is cut for one, what lies on a rank, what is in flight there.

A `piece` is a contiguous run of layers that a microbatch passes as one; a rank (pipeline stage of GPUs) holds one piece
or several. Sources: GPipe (arXiv 1811.06965), 1F1B and interleaved 1F1B (arXiv 2104.04473), ZB-H1 (arXiv 2401.10241),
DualPipe (arXiv 2412.19437, section 3.2.1) and DualPipe-V, its half that keeps one copy of the parameters.
"""

from __future__ import annotations

from specs.model import Model
from specs.workload import Schedule, TrainingWorkload, Workload


def is_bidirectional(schedule: Schedule) -> bool:
    """Whether forward and backward passes of different microbatches run as one, each hiding the other's messages."""
    return schedule in ("dualpipe", "dualpipe_v")


def schedule_of(workload: Workload) -> Schedule:
    """The workload's schedule; serving has one piece a rank, as 1F1B."""
    return workload.schedule if workload.kind == "training" else "1f1b"


def pieces_per_rank(workload: Workload, pp: int) -> int:
    """Distinct pieces that one of `pp` ranks holds."""
    if pp == 1 or workload.kind == "serving":
        return 1
    if workload.schedule == "interleaved":
        return workload.chunks
    return 2 if is_bidirectional(workload.schedule) else 1


def piece_count(workload: Workload, pp: int) -> int:
    """Pieces that the model is cut into over `pp` ranks."""
    if schedule_of(workload) == "dualpipe":
        return pp
    return pp * pieces_per_rank(workload, pp)


def copies(workload: Workload) -> int:
    """Ranks of one instance that hold the same piece: DualPipe feeds microbatches from both ends."""
    return 2 if schedule_of(workload) == "dualpipe" else 1


def pieces_of_rank(workload: Workload, pp: int, rank: int) -> tuple[int, ...]:
    """The pieces on a rank, ascending.

    Interleaved: every pp-th. DualPipe: rank and its mirror. DualPipe-V: down the ranks and up again.
    """
    count = piece_count(workload, pp)
    if pieces_per_rank(workload, pp) == 1:
        return (rank,)
    if schedule_of(workload) == "interleaved":
        return tuple(range(rank, count, pp))
    return tuple(sorted((rank, count - 1 - rank)))


def rank_of_piece(workload: Workload, pp: int, piece: int) -> int:
    """The (first) rank that holds a piece."""
    return next(rank for rank in range(pp) if piece in pieces_of_rank(workload, pp, rank))


def in_flight(workload: TrainingWorkload, pp: int, piece: int, microbatches: int) -> int:
    """Most microbatches whose activations a piece keeps at once.

    GPipe: all. 1F1B and ZB-H1: the depth that is left. Interleaved: rank r runs 2 (pp - r - 1) + (v - 1) pp + 1 chunk
    passes ahead of its first backward, pp microbatches of a chunk at a time. DualPipe and DualPipe-V: the depth that is
    left of the direction, pp + 1 (2 pp + 1) on a rank in all.
    """
    if workload.schedule == "gpipe":
        return microbatches
    count = piece_count(workload, pp)
    if workload.schedule == "interleaved" and pp > 1:
        chunks, rank = workload.chunks, piece % pp
        ahead = min(2 * (pp - rank - 1) + (chunks - 1) * pp + 1, chunks * microbatches)
        return min(microbatches, sum(i // pp % chunks == piece // pp for i in range(ahead)))
    return min(count - piece, microbatches)


def schedule_problem(model: Model, workload: Workload, pp: int, microbatches: int) -> str:
    """Why `pp` ranks can't run the workload's schedule over `microbatches`; "" where they can."""
    if workload.kind == "serving":
        return ""
    schedule, count = workload.schedule, piece_count(workload, pp)
    if count > model.whole_layers:
        return f"schedule {schedule} cuts {model.whole_layers} layers into {count} pieces"
    if pp == 1:
        return "schedule dualpipe needs an even pp" if schedule == "dualpipe" else ""
    if schedule == "interleaved" and microbatches % pp:
        return f"schedule interleaved needs microbatches ({microbatches}) that are a multiple of pp {pp}"
    if schedule == "dualpipe" and (pp % 2 or microbatches % 2 or microbatches < 2 * pp):
        return (
            f"schedule dualpipe needs an even pp and an even number of microbatches, at least 2 pp (pp {pp}, "
            f"{microbatches} microbatches)"
        )
    if schedule == "dualpipe_v" and microbatches < 2 * pp:
        return f"schedule dualpipe_v needs at least 2 pp microbatches (pp {pp}, {microbatches} microbatches)"
    return ""
