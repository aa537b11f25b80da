"""What a message rule says: what a token is sent once per, and which way it goes."""

from __future__ import annotations

from typing import Literal, Protocol

from placement.problem.arrays import FloatArray, IntArray

#: What a message is for: a copy of the token, a bin that the token touches, or any bin.
Counts = Literal["copies", "touches", "all"]


class MessageRule(Protocol):
    """A message rule. A bin is a GPU or a node.

    Attributes:
        forwards: A token crosses to each other node once, to the GPU with its home's local rank, which passes it on to
            GPUs of its node; else each message goes to its GPU at once.
        counts: What a message is for; see Counts.
        nodes_decide: What crosses nodes depends only on which node holds which expert.
    """

    forwards: bool
    counts: Counts
    nodes_decide: bool

    def per_token(self, touched: FloatArray, copies: FloatArray, usable: FloatArray) -> FloatArray:
        """Expected messages of a token to bins.

        Args:
            touched: [..., bins] Chance that the token touches each bin.
            copies: [..., bins] Expected copies of the token that go there.
            usable: [bins] 1 where a bin has a GPU that has not failed, else 0.
        """
        ...

    def reached(self, gpu: IntArray, usable: IntArray) -> tuple[IntArray, IntArray]:
        """([messages], [messages]) token and GPU of all messages of concrete tokens.

        Args:
            gpu: [tokens, k] GPU that serves each copy.
            usable: GPUs that have not failed, ascending.
        """
        ...
