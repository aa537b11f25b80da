"""Presets: the environment and the command of an engine on a fabric, and how to check that both hold what they say."""
