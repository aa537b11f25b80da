"""What differs between serving engines: the copy that serves a token, and what a message carries."""

from __future__ import annotations

from typing import Literal

Dispatch = Literal["even", "nearest", "planned"]


MessageRule = Literal["per_expert", "per_rank", "per_node", "dense"]


Engine = Literal["vllm", "sglang", "trtllm"]
