"""What the annealing goes by, compiled: the guide of a placement, and a bound of it that most proposals fail."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.kernels import inlined, lean, lean_kernel
from placement.problem.arrays import FloatArray
from solvers.experts.search.norm import power_16, root_16
from solvers.experts.search.state import LARGER, LINK, SUM, Busy, Goal, State, Sums

#: A bound this little over the limit, as a share of it, may be rounding.
ROUNDING = 1e-12


class Slopes(NamedTuple):
    """Derivatives of the guide without its price of an excess: by gpu_cost [rows, gpus], in_sum [windows, in
    groups], out_sum [windows, out groups] and total [windows]."""

    gpu: FloatArray
    ins: FloatArray
    outs: FloatArray
    total: FloatArray


def empty_slopes(s: State) -> Slopes:
    """Scratch for a state."""
    return Slopes(*(np.zeros_like(each) for each in (s.busy.cost, *s.sums)))


@inlined
def worst_mean(parts: FloatArray, weight: FloatArray, tail: float) -> float:
    """Mean of parts[0] over the worst `tail` share of the weight (1: the mean, 0: the largest); parts[1] is scratch."""
    windows, total = len(weight), 0.0
    if tail >= 1.0:
        for w in range(windows):
            total += weight[w] * parts[0, w]
        return total
    for w in range(windows):
        parts[1, w] = weight[w]
    left = tail
    while True:
        worst = 0
        for w in range(1, windows):
            if parts[1, w] > 0.0 and (parts[1, worst] <= 0.0 or parts[0, w] > parts[0, worst]):
                worst = w
        if tail <= 1e-12:
            return float(parts[0, worst])
        part = min(left, parts[1, worst])
        total += part * parts[0, worst]
        left -= part
        if part <= 0.0 or left <= 1e-12:
            return float(total / (tail - left))
        parts[1, worst] = 0.0


@inlined
def _norm_slope(x: float) -> float:
    """x ** 15."""
    return float(power_16(x) / x) if x > 0.0 else 0.0


@inlined
def _egress(goal: Goal, out_sum: FloatArray, total: FloatArray, w: int, o: int) -> float:
    """Seconds of an egress link: of what leaves it, or with one class of homes of all that does not stay there."""
    return float(goal.out_rate[o] * (total[w] - out_sum[w, o] if goal.classes == 1 else out_sum[w, o]))


@lean_kernel
def evaluate(
    goal: Goal, busy: Busy, sums: Sums, parts: FloatArray, share: float, price: float
) -> tuple[float, float, float, float]:
    """(guide, objective without its constants, excess of the largest load over the cap, smooth part).

    The guide adds to the objective `share` times a smooth part: a little of the mean traffic, the 16-norms of links
    (left out where they are the objective) and of GPU costs; and prices the excess.

    Args:
        busy, sums: work and traffic. parts: [2, windows] scratch. share: weight of the smooth part.
        price: of an excess over the cap.
    """
    gpu_load, gpu_cost, weight = busy.load, busy.cost, goal.window_weight
    in_sum, out_sum, total = sums.ins, sums.outs, sums.total
    gpus, ins, outs = len(gpu_load), in_sum.shape[1], out_sum.shape[1]
    cap, join, moved, kinds = goal.cap, goal.join, goal.kind_moved, len(goal.kind_moved)
    over, top_load = 0.0, 0.0
    for g in range(gpus):
        top_load = max(top_load, gpu_load[g])
        over += max(0.0, gpu_load[g] - cap)
    smooth = 0.0
    for w in range(len(weight)):
        link, links, value, work = 0.0, 0.0, 0.0, 0.0
        for i in range(ins):
            link = max(link, in_sum[w, i])
        for o in range(outs):
            link = max(link, _egress(goal, out_sum, total, w, o))
        for r in range(w * kinds, (w + 1) * kinds):
            top, norm = 0.0, 0.0
            for g in range(gpus):
                top = max(top, gpu_cost[r, g])
            scale = 1.0 / top
            for g in range(gpus):
                norm += power_16(gpu_cost[r, g] * scale)
            work += top * root_16(norm / gpus)
            if join == LARGER:
                top = max(top, moved[r - w * kinds] * link)
            value += top
        if join == LINK:
            parts[0, w] = link
        else:
            parts[0, w] = value if join == LARGER else value + link
        if join != LINK and link > 0.0:
            scale = 1.0 / link
            for i in range(ins):
                links += power_16(in_sum[w, i] * scale)
            for o in range(outs):
                links += power_16(_egress(goal, out_sum, total, w, o) * scale)
        smooth += weight[w] * (goal.reach_scale * total[w] + work + link * root_16(links / (ins + outs)))
    value = worst_mean(parts, weight, goal.tail)
    return value * (1.0 + price * over) + share * smooth, value, max(0.0, top_load - cap), smooth


@lean
def set_slopes(goal: Goal, gpu_cost: FloatArray, sums: Sums, p: Slopes, share: float) -> None:
    """Fills p at the placement's own figures, for the mean over windows (goal.tail 1); share: of the smooth part."""
    in_sum, out_sum, total = sums.ins, sums.outs, sums.total
    gpus, ins, outs = gpu_cost.shape[1], in_sum.shape[1], out_sum.shape[1]
    join, moved, kinds = goal.join, goal.kind_moved, len(goal.kind_moved)
    for w in range(len(goal.window_weight)):
        weight = goal.window_weight[w]
        top_in, top_out, link, links, counts = -1, -1, 0.0, 0.0, 0.0
        for i in range(ins):
            if in_sum[w, i] > link:
                link, top_in = in_sum[w, i], i
        for o in range(outs):
            seconds = _egress(goal, out_sum, total, w, o)
            if seconds > link:
                link, top_in, top_out = seconds, -1, o
        for k in range(kinds):
            r, top_gpu, norm = w * kinds + k, 0, 0.0
            for g in range(gpus):
                if gpu_cost[r, g] > gpu_cost[r, top_gpu]:
                    top_gpu = g
            top = gpu_cost[r, top_gpu]
            for g in range(gpus):
                norm += power_16(gpu_cost[r, g] / top)
            norm = top * root_16(norm / gpus)
            for g in range(gpus):
                p.gpu[r, g] = weight * share * _norm_slope(gpu_cost[r, g] / norm) / gpus
            # Messages are longer than the work of this kind, or count beside it.
            behind = join == LARGER and top >= moved[k] * link
            if behind or join == SUM:
                p.gpu[r, top_gpu] += weight
            if not behind:
                counts += moved[k]
        if join != LINK and link > 0.0:
            for i in range(ins):
                links += power_16(in_sum[w, i] / link)
            for o in range(outs):
                links += power_16(_egress(goal, out_sum, total, w, o) / link)
        scale = 1.0 / (link * root_16(links / (ins + outs))) if links > 0.0 else 0.0
        p.total[w] = weight * share * goal.reach_scale
        for i in range(ins):
            slope = share * _norm_slope(in_sum[w, i] * scale) / (ins + outs)
            if i == top_in:
                slope += counts
            p.ins[w, i] = weight * slope
        for o in range(outs):
            slope = share * _norm_slope(_egress(goal, out_sum, total, w, o) * scale) / (ins + outs)
            if o == top_out:
                slope += counts
            slope *= weight * goal.out_rate[o]
            if goal.classes == 1:
                p.outs[w, o] = -slope
                p.total[w] += slope
            else:
                p.outs[w, o] = slope


@inlined
def least_guide(gpu_cost: FloatArray, sums: Sums, p: Slopes) -> float:
    """No more than the guide of a placement: a convex function is nowhere below its tangent, and an excess adds to it.

    Sums of maxima and norms are of degree one, so that the tangent goes through zero (Euler). p: slopes at any
    placement.
    """
    gpu, ins, outs, by_total = p.gpu, p.ins, p.outs, p.total
    in_sum, out_sum, total = sums.ins, sums.outs, sums.total
    result = 0.0
    for r in range(gpu_cost.shape[0]):
        for g in range(gpu_cost.shape[1]):
            result += gpu[r, g] * gpu_cost[r, g]
    for w in range(len(total)):
        result += by_total[w] * total[w]
        for i in range(in_sum.shape[1]):
            result += ins[w, i] * in_sum[w, i]
        for o in range(out_sum.shape[1]):
            result += outs[w, o] * out_sum[w, o]
    return result
