"""Both sides of the targets that are about presets: an instance as the engine comes, and with what is worth setting."""
