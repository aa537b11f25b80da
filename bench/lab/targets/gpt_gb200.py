"""GPT-OSS-120B on GB200 NVL72: a published-style layout against the solved one."""

from __future__ import annotations

from bench.lab.rack.pair import rack_target

TARGET = rack_target("gpt_gb200", "gpt_oss", "GPT-OSS-120B on GB200 NVL72", "gpt_oss_120b_gb200_ib")
