"""Pipelines run pass by pass: the orders of the published schedules on every rank, and the time they take.

An oracle for the closed forms. Passes are (kind, piece, microbatch): "F", "B" (whole backward), "I" (for inputs), "W"
(for weights), and "P" for a forward and a backward pass as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Pass = tuple[str, int, int]
Step = tuple[Pass, ...]


def gpipe(ranks: int, m: int) -> list[list[Step]]:
    return [[((kind, r, i),) for kind in "FB" for i in range(m)] for r in range(ranks)]


def one_f_one_b(ranks: int, m: int) -> list[list[Step]]:
    orders = []
    for r in range(ranks):
        warm = min(ranks - r - 1, m)
        order: list[Step] = [(("F", r, i),) for i in range(warm)]
        for i in range(m - warm):
            order += [(("F", r, warm + i),), (("B", r, i),)]
        orders.append(order + [(("B", r, i),) for i in range(m - warm, m)])
    return orders


def interleaved(ranks: int, m: int, chunks: int) -> list[list[Step]]:
    """Megatron-LM's order (arXiv 2104.04473, section 2.2)."""
    orders = []
    for r in range(ranks):
        total = m * chunks
        forward = [
            ("F", i // ranks % chunks * ranks + r, i // (ranks * chunks) * ranks + i % ranks) for i in range(total)
        ]
        backward = [
            ("B", (chunks - 1 - i // ranks % chunks) * ranks + r, i // (ranks * chunks) * ranks + i % ranks)
            for i in range(total)
        ]
        warm = min(total, 2 * (ranks - r - 1) + (chunks - 1) * ranks)
        order: list[Step] = [(each,) for each in forward[:warm]]
        for i in range(total - warm):
            order += [(forward[warm + i],), (backward[i],)]
        orders.append(order + [(each,) for each in backward[total - warm :]])
    return orders


def dualpipe(ranks: int, m: int) -> list[list[Step]]:
    """The eight steps of DualPipe's published code. Microbatches of the second direction are numbered from m / 2."""
    half, orders = ranks // 2, []
    for r in range(ranks):
        near, order = min(r, ranks - 1 - r), []
        done = {("F", 0): 0, ("F", 1): 0, ("B", 0): 0, ("B", 1): 0}
        put_off: list[tuple[int, int]] = []

        def make(kind: str, phase: int, r: int = r, done: dict[tuple[str, int], int] = done) -> Pass:
            direction = phase ^ (r >= half)
            which = "F" if kind == "F" else "B"
            number = done[which, direction] + direction * (m // 2)
            done[which, direction] += 1
            return (kind, ranks - 1 - r if direction else r, number)

        def inputs(phase: int, put_off: list[tuple[int, int]] = put_off, make: Callable[..., Pass] = make) -> Step:
            each = make("I", phase)
            put_off.append(each[1:])
            return (each,)

        def weights(put_off: list[tuple[int, int]] = put_off) -> Step:
            return (("W", *put_off.pop(0)),)

        def pair(forward: int, backward: int, make: Callable[..., Pass] = make) -> Step:
            return (make("F", forward), make("B", backward))

        order += [(make("F", 0),) for _ in range(2 * (half - near - 1))]
        for _ in range(near + 1):
            order += [(make("F", 0),), (make("F", 1),)]
        for _ in range(half - near - 1):
            order += [inputs(1), weights(), (make("F", 1),)]
        for i in range(m // 2 - ranks + near + 1):
            alone = i == 0 and near == half - 1
            order += [(make("F", 0),), (make("B", 1),)] if alone else [pair(0, 1)]
            order.append(pair(1, 0))
        for _ in range(half - near - 1):
            order += [(make("B", 1),), pair(1, 0)]
        late = False
        for i in range(near + 1):
            late |= i == (near + 1) // 2 and near % 2 == 1
            order.append(inputs(1) if late else (make("B", 1),))
            late |= i == (near + 1) // 2 and near % 2 == 0
            order.append(inputs(0) if late else (make("B", 0),))
        for _ in range(half - near - 1):
            order += [weights(), inputs(0)]
        order += [weights() for _ in range(near + 1)]
        orders.append(order)
    return orders


def run(orders: Sequence[Sequence[Step]], pieces: int, seconds: Callable[[Step], float]) -> float:
    """Seconds until every rank has run its order, each step as soon as what it needs is done."""
    done: dict[tuple[str, int, int], float] = {}
    clock, at = [0.0] * len(orders), [0] * len(orders)
    moved = True
    while moved:
        moved = False
        for rank, order in enumerate(orders):
            while at[rank] < len(order):
                step = order[at[rank]]
                needs = [need for each in step for need in _needs(each, pieces)]
                if any(need not in done for need in needs):
                    break
                clock[rank] = max(clock[rank], *(done[need] for need in needs)) if needs else clock[rank]
                clock[rank] += seconds(step)
                for kind, piece, number in step:
                    if kind != "W":
                        done["F" if kind == "F" else "B", piece, number] = clock[rank]
                at[rank] += 1
                moved = True
    if any(count < len(order) for count, order in zip(at, orders, strict=True)):
        raise RuntimeError("the orders wait for each other")
    return max(clock)


def most_in_flight(order: Sequence[Step]) -> dict[int, int]:
    """By piece, the most microbatches whose forward pass has run and whose backward pass has not ended."""
    now: dict[int, int] = {}
    most: dict[int, int] = {}
    for step in order:
        for kind, piece, _ in step:
            if kind == "F":
                now[piece] = now.get(piece, 0) + 1
                most[piece] = max(most.get(piece, 0), now[piece])
        for kind, piece, _ in step:
            if kind in ("B", "I"):
                now[piece] -= 1
    return most


def most_on_rank(order: Sequence[Step]) -> int:
    """The most pairs of piece and microbatch in flight on a rank at once."""
    now = most = 0
    for step in order:
        now += sum(kind == "F" for kind, _, _ in step)
        most = max(most, now)
        now -= sum(kind in ("B", "I") for kind, _, _ in step)
    return most


def _needs(each: Pass, pieces: int) -> list[tuple[str, int, int]]:
    kind, piece, number = each
    if kind == "W":
        return []
    if kind == "F":
        return [("F", piece - 1, number)] if piece else []
    own = ("F", piece, number)
    return [own, ("B", piece + 1, number)] if piece < pieces - 1 else [own]
