"""Serving engines: the files they load, how they are launched, and reading their files back (docs/engines.md)."""
