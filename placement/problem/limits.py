"""What keeps a batch from growing."""

from __future__ import annotations

from typing import Literal

#: An objective, memory, the engine's scheduler, a pin, or (of prefill) arrivals that vary.
Limit = Literal["TTFT", "TPOT", "HBM", "engine", "pin", "arrivals"]
