"""What a dispatch policy says: which share of the tokens of each home goes to which copy of an expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.topology import Topology
from specs.engine import Dispatch


@dataclass(frozen=True)
class Shares:
    """Shares of tokens by home class, in compressed rows: class c, expert e owns entries start[c*E+e] : start[c*E+e+1].

    Attributes:
        class_of_gpu: [gpus] home class of each source GPU; homes of one class dispatch alike.
        start: [classes * experts + 1] row starts.
        slot: [entries] slot that serves the share.
        fraction: [entries] share of the class's tokens for that expert, 0..1; each row sums to 1.
        together: Copies are not drawn for each expert by itself: a token has one number, uniform over all residues, and
            of a row of r entries it takes entry number % r.
        alike: So many neighbouring classes, from a multiple of it on, share out alike over nodes.
    """

    class_of_gpu: IntArray
    start: IntArray
    slot: IntArray
    fraction: FloatArray
    together: bool = False
    alike: int = 1

    @property
    def classes(self) -> int:
        return int(self.class_of_gpu.max()) + 1


class DispatchPolicy(Protocol):
    """A dispatch policy.

    Attributes:
        alike: All homes send to the copies of an expert in equal shares.
        drawn_once: A copy is drawn once for each home GPU and expert, not for every token.
        together: One number of a token picks the copies of all its experts (Shares.together).
        solved: Its shares are a plan that is to be solved (`fractions`).
        closed_form: The policy that stands for it where no plan has been solved.
    """

    alike: bool
    drawn_once: bool
    together: bool
    solved: bool
    closed_form: Dispatch

    def shares(
        self, topology: Topology, slots_per_gpu: int, copies: IntArray, count: IntArray, fractions: FloatArray | None
    ) -> Shares:
        """The shares in expectation over fair draws.

        Args:
            topology, slots_per_gpu: The GPUs, and where the slots lie.
            copies: [experts, most copies] Slots of each expert, padded with 0.
            count: [experts] How many of them there are.
            fractions: [nodes, slots] The plan of a policy that is solved, else None.

        Raises:
            InputError: A policy that is solved has no valid plan.
        """
        ...

    def on_nodes(self, holds: BoolArray, homes: FloatArray, target: IntArray | None) -> FloatArray:
        """[nodes, experts] share of an expert's tokens that its one copy on a node serves.

        Args:
            holds: [nodes, experts] Whether a node has a copy.
            homes: [nodes] Share of the tokens whose home is there.
            target: [nodes, experts] Node that serves a home's tokens, where the policy is solved and one is known.
        """
        ...

    def between_nodes(self, topology: Topology) -> Dispatch:
        """The policy that stands for it where each node is taken as one GPU."""
        ...
