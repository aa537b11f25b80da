"""Recordings that serving engines and others write, read piece by piece: one file a format.

`detect` finds the format, a format's `read` fills an `Intake`, and what the intake holds is cleaned and written as a
trace or as load counts of this project (docs/routing.md).
"""
