"""What keeps a batch from growing."""

from __future__ import annotations

from typing import Literal

#: An objective, memory, the engine's scheduler, a pin, (of prefill) arrivals that vary, or (of decode) what prefill or
#: the links of KV transfers hand over.
Limit = Literal["TTFT", "TPOT", "HBM", "engine", "pin", "arrivals", "prefill", "links"]
