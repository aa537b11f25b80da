"""Dispatch plans for `planned` dispatch: which share of each home node's tokens goes to which copy."""

from solvers.dispatch.plan import fractions_for, needs_fractions, plan_fractions
from solvers.dispatch.simple import near_fractions, rounded_fractions, target_fractions

__all__ = [
    "fractions_for",
    "near_fractions",
    "needs_fractions",
    "plan_fractions",
    "rounded_fractions",
    "target_fractions",
]
