"""Pipeline schedules as orders of passes on devices, run event by event (docs/notes/schedules.md)."""
