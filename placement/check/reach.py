"""What tokens reach at least, by the prices of a witness; without the solvers' code.

The argument is in docs/formulation.md, "Messages, by co-location". Prices may be any numbers: poor ones prove less, not
wrongly. What is computed in floating point carries an allowance for rounding that is itself proven there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from placement.arithmetic import weighted_sum
from placement.check.messages import Reach, most_experts
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.records.witness import UNIT, ZERO, ReachWitness, Tables

if TYPE_CHECKING:
    from placement.check.nodes import NodeWork

#: Most experts of a token whose partitions are gone through; of larger sets the most loaded ones count.
MOST_IN_SET = 8
#: Sets that are gone through at once.
BLOCK = 4096
#: Rounding of each step in the longest chain of a sum, over the sum of the terms' sizes: twice the unit roundoff, as
#: terms are rounded, too. SPARE: Steps beside the additions.
STEP, SPARE = 2.0**-52, 64


class WitnessError(Exception):
    """A witness that is not of the problem; the message says why."""


@dataclass(frozen=True)
class _Bins:
    """How messages are counted: `count` bins that hold `most` experts each, of `homes` shares of the tokens where homes
    dispatch apart (else None); `work` of nodes, where it limits what they serve."""

    name: str
    count: int
    most: int
    homes: FloatArray | None
    work: NodeWork | None


def witnessed(
    problem: LayerProblem, reach: Reach, parts: tuple[ReachWitness, ...], work: NodeWork | None = None
) -> Reach:
    """`reach` with what the prices prove of the tokens' mean.

    Args:
        work: of nodes. Prices of it prove what holds beside that much work, and beside more where its time counts.

    Raises:
        WitnessError: The prices are not of this problem.
    """
    tariff, topology = tariff_of(problem), problem.topology
    if problem.data.sets is None or tariff.linear or topology.gpus == 1:
        raise WitnessError("it has prices of token sets, which are not counted")
    by_node = topology.nodes > 1 and (tariff.rule.forwards or not tariff.alike)
    count = topology.nodes if by_node else topology.gpus
    most = most_experts(problem, topology.gpus_per_node if by_node else 1)
    homes = None if tariff.alike else problem.hardware.homes.reshape(count, -1).sum(axis=1)
    name = ("" if tariff.alike else "remote_") + ("nodes" if by_node else "gpus")
    bins, least = _Bins(name, count, most, homes, work), getattr(reach, name)
    ids, weight = _sets(problem)
    found, seen = float(least), set()
    for one in parts:
        if not 0 <= one.part < one.parts <= len(ids) or (one.part, one.parts) in seen or one.parts != parts[0].parts:
            raise WitnessError("its parts are not those of one cut")
        seen.add((one.part, one.parts))
        own = slice(one.part, None, one.parts)
        share = float(weight[own].sum())
        # Of the sets whose prices prove nothing each reaches the least that any does.
        found += share * max(0.0, _mean_bins(problem, bins, ids[own], weight[own] / share, one) - least)
    return replace(reach, **{name: max(least, found * (1 - SPARE * STEP))})


def _sets(problem: LayerProblem) -> tuple[IntArray, FloatArray]:
    """([sets, k] experts, [sets] share of the tokens, averaged over the windows); large sets cut, and merged then."""
    sets = problem.data.sets
    if sets is None:
        raise WitnessError("there are no token sets")
    ids, weight = sets.ids.astype(np.int64), weighted_sum(problem.data.window_weight, sets.weight)
    if ids.shape[1] <= MOST_IN_SET:
        return ids, weight
    busiest = np.argsort(-problem.data.mean_load[ids], axis=1, kind="stable")[:, :MOST_IN_SET]
    kept, of = np.unique(np.sort(np.take_along_axis(ids, busiest, axis=1), axis=1), axis=0, return_inverse=True)
    return kept, np.bincount(of.reshape(-1), weight, len(kept)).astype(np.float64)


def _mean_bins(problem: LayerProblem, bins: _Bins, ids: IntArray, weight: FloatArray, one: ReachWitness) -> float:
    """Bins that these tokens reach at least: mean of the least that each pays, less the most that prices give back."""
    experts, k, home = problem.experts, ids.shape[1], bins.homes is not None
    pairs = k * (k - 1) // 2
    if one.tokens.shape != (len(ids), 2 * pairs + k if home else pairs):
        raise WitnessError(f"it has prices of {one.tokens.shape}, not of the {len(ids)} token sets")
    if k == 1 or bins.count == 1 or bins.most >= experts or (bins.most == 1 and not home):
        raise WitnessError("it has prices where counting says all")
    prices = one.tokens.astype(np.int32) - ZERO
    paid = weight * _least_paid(prices, k, home, bins.most) / UNIT
    number, size = float(paid.sum()), float(np.abs(paid).sum())
    high, low = np.array([(i, j) for i in range(k) for j in range(i)]).T
    owed, both = [], (ids[:, high], ids[:, low])
    targets = (both, both, (ids, ids)) if home else (both,)
    for features, target in zip(np.split(prices, [pairs, 2 * pairs], axis=1), targets, strict=False):
        total, sized = _summed(features / UNIT * weight[:, None], *target, experts)
        owed.append(total)
        size += sized
    if home:
        value = _least_apart(bins, experts, one.tables, owed[0], owed[1], np.diag(owed[2]))
    else:
        value = _least_alike(bins, experts, one.tables, owed[0])
    return number + value - STEP * (len(ids) + SPARE) * size


def _summed(values: FloatArray, row: IntArray, column: IntArray, experts: int) -> tuple[FloatArray, float]:
    """([experts, experts] values summed by row and column, the sum of their sizes)."""
    total = np.bincount((row * experts + column).reshape(-1), values.reshape(-1), experts * experts)
    return total.reshape(experts, experts).astype(np.float64), float(np.abs(values).sum())


def _least_paid(prices: NDArray[np.int32], k: int, home: bool, most: int) -> FloatArray:
    """[sets] least over all partitions of a set's experts into bins: UNIT for every bin beside the home, and the prices
    of the features that the partition has. In whole numbers, so exact."""
    return np.concatenate([
        _least_paid_block(prices[first : first + BLOCK].T, k, home, most) for first in range(0, len(prices), BLOCK)
    ]).astype(np.float64)  # fmt: skip


def _least_paid_block(prices: NDArray[np.int32], k: int, home: bool, most: int) -> NDArray[np.int32]:
    pairs, full = k * (k - 1) // 2, (1 << k) - 1
    whole = _of_subsets(prices[:pairs], k) + UNIT
    least = np.zeros_like(whole)
    sizes = np.array([subset.bit_count() for subset in range(full + 1)])
    for subset in range(1, full + 1):
        lowest = subset & -subset
        if lowest == 1 and not home and subset != full:
            continue  # subsets with the first expert are the first bin's, which is chosen last
        others = rest = subset ^ lowest
        best = np.full(whole.shape[1], np.iinfo(np.int32).max, dtype=np.int32)
        while True:
            if sizes[others] < most:
                np.minimum(best, whole[others | lowest] + least[rest ^ others], out=best)
            if not others:
                break
            others = (others - 1) & rest
        least[subset] = best
    if not home:
        return np.asarray(least[full])
    inside, alone = _of_subsets(prices[pairs : 2 * pairs], k), prices[2 * pairs :]
    found = least[full].copy()
    for subset in range(1, full + 1):
        if sizes[subset] <= most:
            inside[subset] += alone[[i for i in range(k) if subset >> i & 1]].sum(axis=0)
            np.minimum(found, inside[subset] + least[full ^ subset], out=found)
    return np.asarray(found)


def _of_subsets(prices: NDArray[np.int32], k: int) -> NDArray[np.int32]:
    """[2 ** k, sets] prices of all pairs within each subset of the experts."""
    out = np.zeros((1 << k, prices.shape[1]), dtype=np.int32)
    for i in range(k):
        own = prices[i * (i - 1) // 2 : i * (i + 1) // 2]
        of_i = np.zeros((1 << i, prices.shape[1]), dtype=np.int32)
        for j in range(i):
            of_i[1 << j : 2 << j] = of_i[: 1 << j] + own[j]
        out[1 << i : 2 << i] = out[: 1 << i] + of_i
    return out


def _least_alike(bins: _Bins, experts: int, tables: Tables, owed: FloatArray) -> float:
    """Least of -<owed, X> over the chances X that pairs share a bin, rounded down."""
    (price,) = _matrices(tables, (experts,), 0)
    rows, most = _rows(tables, experts), bins.most
    exact = bins.count * most == experts
    gain = price - 0.5 * (owed + owed.T) + 0.5 * (rows[None, :] - rows[:, None])
    box = _cheapest(gain, most - 1, exact).sum() + np.trace(price)
    # If all rows of X sum to `most`, what is left of it beside the mean has no part along the ones.
    null = np.full(experts, 1 / np.sqrt(experts)) if exact else None
    top = _largest_inner(price, null, most, experts * (1 - 1 / bins.count))
    size = np.abs(gain).sum() + np.abs(price).sum() * 2 + np.abs(owed).sum() + experts * np.abs(rows).sum()
    return float(box - top - price.sum() / bins.count - STEP * (2 * experts + SPARE) * size)


def _least_apart(
    bins: _Bins, experts: int, tables: Tables, owed_away: FloatArray, owed_near: FloatArray, owed_home: FloatArray
) -> float:
    """Least of -<owed, (R, L, l)> over the chances that homes allow, rounded down."""
    if bins.homes is None:
        raise WitnessError("homes dispatch alike")
    # A witness without prices of work proves what holds whatever nodes do.
    work = bins.work if len(tables.rows) == 2 * experts else None
    if work is None:
        priced, own = _NO_WORK, slice(1, None)
        at_home, away = _matrices(tables, (experts + 1, experts), experts * (experts - 1) // 2)
        rows = _rows(tables, experts)
    else:
        own = slice(1, -1)
        at_home, away = _matrices(tables, (experts + 2, experts), experts * (experts - 1) // 2)
        rows, prices = np.split(_rows(tables, 2 * experts), 2)
        priced = _priced(bins, work, np.maximum(prices, 0.0))
    most, alone, low = bins.most, tables.alone, float(bins.homes.min())
    if not 1e-6 < alone < 1e6:
        raise WitnessError("it weighs the chance to be at home by no number from 1e-6 to 1e6")
    near = at_home[own, own] - 0.5 * (owed_near + owed_near.T)
    far = away - 0.5 * (owed_away + owed_away.T) + 0.5 * (rows[None, :] - rows[:, None])
    if low > 0:
        # R is at most (1 - low) / low times L, whatever that costs.
        pair = np.zeros((experts, experts))
        pair[np.tril_indices(experts, -1)] = np.maximum(tables.table(2), 0.0)
        pair += pair.T
        far, near = far + 0.5 * pair, near - 0.5 * (1 - low) / low * pair
    far += 0.5 * (priced.pair + priced.pair.T)
    if_away = _cheapest(far, most - 1, False) + np.diag(away)
    root = np.sqrt(alone)
    if_home = _cheapest(near, most - 1, True) + np.diag(at_home)[own] + 2 * root * at_home[0, own] - owed_home
    if_home += priced.at_home
    gain = np.sort(if_home - if_away)
    null = np.concatenate([[most / root], -np.ones(experts)])
    if work is not None:
        null = np.append(null, -np.sqrt(most))
    null /= np.sqrt((null * null).sum())
    top, rise = _largest_rising(away, None, most, experts - most)
    top += _largest_rising(at_home, null, alone + most, alone + most, work is not None)[0]
    # Chances to be at home sum to `most` less the empty slots, each from `low` to 1. The sum is linear in the empty
    # slots between those at which chances are all `low` or 1.
    empty, priced_empty = np.zeros(1), 0.0
    if work is not None:
        empty = np.append(empty, np.maximum(most - experts * low - (1 - low) * np.arange(experts), 0.0))
    left = (most - experts * low - empty)[:, None] - (1 - low) * np.arange(experts)
    sums = ((low + np.clip(left, 0.0, 1 - low)) * gain).sum(axis=1)
    if work is not None:
        sums += empty * (_of_empty(at_home, near, most, root) - rise)
        priced_empty = 4 * (1 + root) * np.abs(at_home[-1]).sum() + experts * np.abs(near).max() + abs(rise)
    box = alone * at_home[0, 0] + if_away.sum() + sums.min() + priced.number
    size = np.abs(near).sum() + np.abs(far).sum() + np.abs(owed_home).sum() + experts * np.abs(rows).sum()
    size += priced.size + most * priced_empty
    size += (2 + alone + 2 * root) * (np.abs(at_home).sum() + np.abs(away).sum())
    size += np.abs(owed_near).sum() + np.abs(owed_away).sum() + np.abs(near - at_home[own, own]).sum()
    return float(box - top - STEP * (2 * experts + SPARE) * size)


@dataclass(frozen=True)
class _Priced:
    """What prices of work add: `pair` [experts, experts], whose mean with its mirror is added to each half of a pair
    elsewhere; `at_home` [experts] to the chance to be at home; `number`; the size of the terms."""

    pair: FloatArray
    at_home: FloatArray
    number: float
    size: float


_NO_WORK = _Priced(np.zeros((1, 1)), np.zeros(1), 0.0, 0.0)


def _priced(bins: _Bins, work: NodeWork, prices: FloatArray) -> _Priced:
    """By each expert's price of the work beside it: the sum over f of B share[f] R[e, f], and its own, is at most
    limit (1 - l[e]), and a bit more for every empty slot."""
    count, experts = bins.count, len(prices)
    paid = prices.sum() * (1 - 1 / count)
    if paid > work.worth:
        prices = prices * (work.worth / paid * (1 - SPARE * STEP))
    # (1 - l) / l is convex; the lines meet it at l of one and two copies, and of all but one and all.
    few = work.share * experts < 1
    falls = np.where(few, count**2 / 2, count / (count - 1)) * work.share
    own = np.where(few, 1.5 * count - 1, count / (count - 1)) * work.share
    doubled = (count - 2) ** 2 / count * work.share.max() * prices.sum()
    pair = prices[:, None] * (count * work.share)[None, :]
    at_home = prices * (work.limit - falls) + doubled
    number = float((prices * (own - work.limit)).sum() - bins.most * doubled)
    terms = prices * (work.limit + own + falls) + doubled
    return _Priced(pair, at_home, number, float(pair.sum() + 4 * terms.sum() + bins.most * doubled))


def _of_empty(at_home: FloatArray, near: FloatArray, most: int, root: float) -> float:
    """What an empty slot costs at least: by itself, and where it takes the place of others beside an expert at home."""
    slot = at_home[1:-1, -1] * (2 / np.sqrt(most))
    beside = near.copy()
    np.fill_diagonal(beside, np.inf)
    dearest = np.sort(beside, axis=1)[:, : most - 1].max(axis=1, initial=-np.inf)
    alone = at_home[0, -1] * 2 * root / np.sqrt(most) + min(0.0, at_home[-1, -1])
    return float(alone - np.maximum(dearest - slot, 0.0).sum())


def _matrices(tables: Tables, sizes: tuple[int, ...], pairs: int) -> list[FloatArray]:
    """The symmetric matrices of the tables, which are followed by one of `pairs` entries."""
    wanted = [size * (size + 1) // 2 for size in sizes] + ([pairs] if pairs else [])
    if [len(table) for table in tables.whole] != wanted or np.abs(tables.units).max() > 1e6:
        raise WitnessError("it has tables of other sizes than the layer")
    return [tables.matrix(i) for i in range(len(sizes))]


def _rows(tables: Tables, experts: int) -> FloatArray:
    if tables.rows.shape != (experts,) or np.abs(tables.rows).max() > 1e6:
        raise WitnessError("it has not one row price an expert")
    return tables.rows


def _cheapest(gain: FloatArray, others: int, exact: bool) -> FloatArray:
    """[rows] least sum of `others` entries of a row beside the diagonal, or of at most so many."""
    beside = gain.copy()
    np.fill_diagonal(beside, np.inf)
    kept = np.sort(beside, axis=1)[:, :others]
    return np.asarray((kept if exact else np.minimum(kept, 0.0)).sum(axis=1))


def _largest_inner(matrix: FloatArray, null: FloatArray | None, top: float, trace: float) -> float:
    """See `_largest_rising`."""
    return _largest_rising(matrix, null, top, trace)[0]


def _largest_rising(
    matrix: FloatArray, null: FloatArray | None, top: float, trace: float, less: bool = False
) -> tuple[float, float]:
    """The largest <matrix, Z> over positive semidefinite Z of that trace (or `less`), eigenvalues at most `top`, and no
    part along the unit vector `null`, if there is one; what it rises by at most per unit of more trace; rounded up.

    For any t and any vectors v: matrix = t I + sum of (a - t) v v' + E, so that <matrix, Z> is at most t trace +
    top * sum of (a - t) |v|^2 over a > t, + |E| trace. That the v are eigenvectors makes E small, and is not relied on.
    """
    n, size = len(matrix), float(np.sqrt((matrix * matrix).sum()))
    if null is not None:
        along = matrix @ null
        matrix = matrix - np.outer(null, along) - np.outer(along, null) + (null @ along) * np.outer(null, null)
    values, vectors = np.linalg.eigh(matrix)
    t = float(values[max(0, n - 1 - int(trace / top))])
    if less:
        t = max(t, 0.0)
    lengths = (vectors * vectors).sum(axis=0)
    above = np.maximum(values - t, 0.0)
    left = matrix - (vectors * (values - t)) @ vectors.T
    left[np.diag_indices(n)] -= t
    # Entries of products are sums of n terms; the lengths of vectors bound what the terms' sizes sum to.
    spread = float(np.abs(values - t).max()) * float(lengths.sum()) + abs(t) * np.sqrt(n)
    off = np.sqrt((left * left).sum()) + STEP * (n + SPARE) * (spread + 8 * size)
    found = t * trace + top * float((above * lengths).sum())
    rise = t + float(off) * (1 + SPARE * STEP) + STEP * (n + SPARE) * 2 * abs(t)
    return found + float(off) * trace * (1 + SPARE * STEP) + STEP * (n + SPARE) * (abs(found) + abs(t) * trace), rise
