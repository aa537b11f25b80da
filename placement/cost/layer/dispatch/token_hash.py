"""vLLM's rule: a hash of the token's place in its batch picks the copy, of all the token's experts at once."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.dispatch.base import Shares
from placement.cost.layer.dispatch.even import Even
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.topology import Topology
from specs.engine import Dispatch

#: floor(2**32 / golden ratio), Knuth's multiplier (vllm/model_executor/layers/fused_moe/router/base_router.py).
MULTIPLIER = 2_654_435_769


def token_hashes(tokens: IntArray) -> IntArray:
    """[...] hash of each token's index in its rank's batch: of an expert with r copies it uses copy hash % r."""
    return np.asarray(tokens.astype(np.int64) * MULTIPLIER & 0xFFFFFFFF)


class TokenHash(Even):
    """See DispatchPolicy. Copies are counted by ascending slot; where a token lives counts for nothing.

    Each copy serves as many tokens, as under `even`. But experts with as many copies take the same one, so that a
    token reaches fewer GPUs where these lie together.
    """

    together = True
    closed_form: Dispatch = "token_hash"

    def shares(
        self, topology: Topology, slots_per_gpu: int, copies: IntArray, count: IntArray, fractions: FloatArray | None
    ) -> Shares:
        even = super().shares(topology, slots_per_gpu, copies, count, fractions)
        return Shares(even.class_of_gpu, even.start, even.slot, even.fraction, together=True)
