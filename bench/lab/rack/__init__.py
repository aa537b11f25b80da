"""The studies of NVL72 racks: a published-style layout against the solved one."""
