"""One message for each node that serves a token, passed on inside it to the GPUs that do."""

from __future__ import annotations

from placement.cost.layer.messages.per_rank import PerRank


class PerNode(PerRank):
    """See MessageRule. As PerRank, but for the way over another node's GPU."""

    forwards = True
    nodes_decide = True
