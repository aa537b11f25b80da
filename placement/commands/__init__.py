"""What the commands share: options, exit codes, progress, and the making of a plan."""
