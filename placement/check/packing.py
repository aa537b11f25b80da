"""That no packing of copies on GPUs of few slots keeps a limit, by a witness's values; without the solvers' code.

The argument is in docs/formulation.md, "Work": each GPU's copies are worth at most so much, and all copies together
more than that of all GPUs, however many copies each expert has. Values may be any numbers that rise with the cost.
"""

from __future__ import annotations

import numpy as np

from placement.check.reach import SPARE, STEP, WitnessError
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.records.witness import PackingWitness

#: Costs this near to one another, relatively, count as alike.
NEAR = 4e-12
#: Most ranges of copies, and most levels, that are gone through.
MOST_RANGES, MOST_LEVELS = 1_000, 20_000
#: Most levels of GPUs of more than two slots, whose pairs are gone through.
MOST_WIDE = 2_000


def check_packing(problem: LayerProblem, cost: FloatArray, proof: PackingWitness) -> None:
    """Checks that no placement keeps `proof.limit`.

    Args:
        cost: [most copies, experts] of one of 1, 2 ... copies.

    Raises:
        WitnessError: The witness does not prove that.
    """
    hardware, tariff = problem.hardware, tariff_of(problem)
    width, speeds = hardware.capacities[hardware.alive], tariff.speeds[hardware.alive]
    if not tariff.alike or (width != width[0]).any() or (speeds != speeds[0]).any() or not 2 <= width[0] <= 4:
        raise WitnessError("it packs GPUs that are unlike, or of other than two to four slots")
    _Packing(cost, len(width), int(width[0]), proof).check()


class _Packing:
    """Copies of one kind of pass and window, to be packed within a limit."""

    def __init__(self, cost: FloatArray, gpus: int, width: int, proof: PackingWitness) -> None:
        self.cost, self.gpus, self.width, self.proof = cost, gpus, width, proof
        levels, leaves = len(proof.stands), int((proof.split[:, :1] < 0).sum())
        if proof.split.shape[1:] != (2,) or proof.value.shape != (leaves, levels) or not leaves:
            raise WitnessError("its ranges of copies and their values don't agree")
        if leaves > MOST_RANGES or levels > (MOST_LEVELS if width == 2 else MOST_WIDE):
            raise WitnessError("it has more ranges or levels than any packing needs")
        rises = (np.diff(proof.stands) > 0).all() and (np.diff(proof.value, axis=1) >= 0).all()
        if not rises or (proof.value < 0).any() or np.abs(proof.value).max(initial=0.0) > 1e6:
            raise WitnessError("the values of copies don't rise with their cost")

    def check(self) -> None:
        """Every range of copies is excluded.

        Raises:
            WitnessError: One is not.
        """
        fewest, left = self._admitted()
        if left < 0:
            return
        most = np.minimum(fewest + left, len(self.cost))
        ranges, leaf = [(fewest, most)], 0
        for expert, copies in self.proof.split.tolist():
            if not ranges:
                raise WitnessError("it has more ranges of copies than it splits")
            low, high = ranges.pop()
            if expert < 0:
                self._exclude(low, high, fewest, left, self.proof.value[leaf])
                leaf += 1
                continue
            if expert >= len(low):
                raise WitnessError(f"it splits the copies of expert {expert}, which there is not")
            first, second = high.copy(), low.copy()
            first[expert], second[expert] = min(high[expert], copies), max(low[expert], copies + 1)
            ranges += [(second, high), (low, first)]
        if ranges:
            raise WitnessError("it leaves ranges of copies open")

    def _admitted(self) -> tuple[IntArray, int]:
        """([experts] fewest copies of which one fits beside the cheapest that there can be, slots left over)."""
        room, least, before = self.proof.limit, np.zeros(0, dtype=np.int64), None
        while True:
            fits = self.cost <= room * (1 + NEAR)
            least = np.where(fits.any(axis=0), fits.argmax(axis=0) + 1, self.gpus * self.width + 1)
            left = int(self.gpus * self.width - least.sum())
            if left < 0 or left == before:
                return least, left
            room, before = self.proof.limit - (self.width - 1) * self._cheapest(least, left), left

    def _exclude(self, low: IntArray, high: IntArray, fewest: IntArray, left: int, value: FloatArray) -> None:
        """No numbers of copies from `low` to `high` can be packed: all are worth more than the GPUs have room for."""
        worth, room = self._worth(value), self.gpus * self._room(value, self._cheapest(fewest, left))
        least = np.full(left + 1, np.inf)
        least[0] = 0.0
        for e in range(len(low)):
            new = np.full(left + 1, np.inf)
            for copies in range(int(low[e]), int(high[e]) + 1):
                extra = copies - int(fewest[e])
                np.minimum(new[extra:], least[: left + 1 - extra] + copies * worth[copies - 1, e], out=new[extra:])
            least = new
        size = self.gpus * self.width * float(np.abs(value).max(initial=0.0)) + abs(room if np.isfinite(room) else 0.0)
        if not least[left] > room + STEP * (len(low) + SPARE) * size:
            raise WitnessError("a range of copies is not excluded by the values of copies")

    def _worth(self, value: FloatArray) -> FloatArray:
        """[most copies, experts] value of one copy; of two slots a small copy's is less by what may lie beside."""
        if self.width > 2:
            return self._at(value, self.cost)
        small = 2 * self.cost <= self.proof.limit
        return np.where(small, -self._at(value, self.proof.limit - self.cost), self._at(value, self.cost))

    def _at(self, value: FloatArray, cost: FloatArray) -> FloatArray:
        """Values of costs: of the highest level that is no more, 0 below all."""
        return np.concatenate([[0.0], value])[np.searchsorted(self.proof.stands, cost * (1 + NEAR), side="right")]

    def _cheapest(self, fewest: IntArray, left: int) -> float:
        """Least cost that any copy can have: of the expert that takes all slots left over."""
        return float(self.cost[np.minimum(fewest + left, len(self.cost)) - 1, np.arange(len(fewest))].min())

    def _room(self, value: FloatArray, cheapest: float) -> float:
        """The most that the copies on one GPU are worth, if their cost is within the limit. None costs less than
        `cheapest`.

        Of two copies a small one is worth minus what the other can be worth, or less; and two small ones at most 0.
        """
        if self.width == 2:
            return 0.0
        stands, limit = self.proof.stands, self.proof.limit * (1 + 2 * NEAR)
        worth = value
        if not len(stands) or cheapest * (1 + NEAR) < stands[0]:
            stands, worth = np.concatenate([[0.0], stands]), np.concatenate([[0.0], value])
        high, low = np.tril_indices(len(stands))
        total = stands[high] + stands[low]
        order = np.argsort(total, kind="stable")
        total, both = total[order], (worth[high] + worth[low])[order]
        beside, best = (stands, worth) if self.width == 3 else (total, np.maximum.accumulate(both))
        partner = np.searchsorted(beside, limit - total, side="right") - 1
        fits = partner >= 0
        return float((both[fits] + best[partner[fits]]).max(initial=-np.inf))
