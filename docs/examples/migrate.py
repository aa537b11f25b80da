"""Moves a running plan to a better one with few moves, and mends it after a GPU is lost.

python docs/examples/migrate.py [SCENARIO_FILE TRACE]
"""

import sys
from pathlib import Path

from placement import Budget, example_trace, load_scenario, load_trace, migrate_plan, plan_scenario

HERE = Path(__file__).parent


def main(scenario: str | Path = HERE / "tiny_moe.yaml", recording: str | Path | None = None) -> None:
    trace, quick = load_trace(recording or example_trace()), Budget(work=0.2)
    # Experts in order of their index, as an engine places them by default.
    running = plan_scenario(load_scenario(scenario), traces=[trace], strategy="linear")
    print(repr(running))

    moved = migrate_plan(running, [trace], max_moves_percent=10, budget=quick)
    for row in moved.role().rows:
        print(f"{row.moves:5} moves  {row.transfer_ms:6.2f} ms  {row.moe_layer_us:6.1f} us a layer, held out")
    print(repr(moved.plan))

    healed = migrate_plan(running, [trace], max_moves=40, failed_gpus=[3], budget=quick)
    print(f"GPU 3 is lost: {healed.role().forced_moves} moves are forced")


if __name__ == "__main__":
    main(*sys.argv[1:])
