"""Plans a scenario of the catalog on synthetic routing, and saves the plan.

python docs/examples/plan_scenario.py [SCENARIO]
"""

import sys

from placement import Budget, load_plan, load_scenario, plan_scenario, verify_plan


def main(name: str = "dgx_a100_175b") -> None:
    scenario = load_scenario(name)
    # A twentieth of the default effort, so that the example is quick.
    plan = plan_scenario(scenario, budget=Budget(work=0.05), on_progress=lambda at: None)
    print(repr(plan))
    print(f"the fullest GPU holds {plan.role().memory.total_bytes / 1e9:.1f} GB")
    print(f"expert placement is at most {plan.role().certificate.gap or 0:.1%} from optimal, on the routing solved on")

    plan.save("plan.json")
    again = load_plan("plan.json")
    checks = verify_plan(again)
    print(f"{sum(check.kind == 'checked' for check in checks)} checks made, "
          f"{sum(check.passed is False for check in checks)} failed")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
