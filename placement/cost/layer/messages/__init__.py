"""Message rules by name. A new rule is a file here, its line below and its name in specs.engine."""

from __future__ import annotations

from placement.cost.layer.messages.base import MessageRule as MessageRule
from placement.cost.layer.messages.dense import Dense
from placement.cost.layer.messages.per_expert import PerExpert
from placement.cost.layer.messages.per_node import PerNode
from placement.cost.layer.messages.per_rank import PerRank
from placement.problem.layer import LayerProblem
from specs.engine import MessageRule as Name

MESSAGE_RULES: dict[Name, MessageRule] = {
    "per_expert": PerExpert(),
    "per_rank": PerRank(),
    "per_node": PerNode(),
    "dense": Dense(),
}


def effective_rule(problem: LayerProblem) -> MessageRule:
    """The rule that can be counted: without token sets only copies are known, not which GPUs a token touches."""
    rule = MESSAGE_RULES[problem.rules.message]
    return MESSAGE_RULES["per_expert"] if rule.counts == "touches" and problem.data.sets is None else rule
