"""DeepSeek-R1 on GB200 NVL72: a published-style layout against the solved one."""

from __future__ import annotations

from bench.lab.rack.pair import rack_target

TARGET = rack_target("deepseek_gb200", "deepseek_r1", "DeepSeek-R1 on GB200 NVL72", "deepseek_r1_gb200_ib")
