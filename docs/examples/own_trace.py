"""Solves on recorded routing and compares strategies on the half that nobody solved on.

python docs/examples/own_trace.py [SCENARIO_FILE TRACE]
"""

import sys
from pathlib import Path

from placement import evaluate_plan, example_trace, load_scenario, load_trace, plan_scenario

HERE = Path(__file__).parent


def main(scenario: str | Path = HERE / "tiny_moe.yaml", recording: str | Path | None = None) -> None:
    trace = load_trace(recording or example_trace())
    print(repr(trace))
    # `nearest` is in the scenario's file; any field can be overridden here.
    plan = plan_scenario(load_scenario(scenario, redundant=16), traces=[trace])
    print(repr(plan))
    print(plan.compare())

    held_out = evaluate_plan(plan, trace, part="second-half")
    for row in held_out.role().rows:
        print(f"{row.record.name:12} balancedness {row.record.balancedness:.3f}  {row.record.moe_layer_us:.0f} us")
    plan.save("plan.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
