"""One message for each node that serves a token, passed on inside it to the GPUs that do."""

from __future__ import annotations

from placement.cost.layer.messages.per_rank import PerRank
from specs.engine import MessageRule as Name


class PerNode(PerRank):
    """See MessageRule. As PerRank, but for the way over another node's GPU."""

    name: Name = "per_node"
    forwards = True
    nodes_decide = True
