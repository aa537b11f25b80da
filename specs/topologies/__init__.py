"""What tools tell of one machine's GPUs, NICs and the links between them, read into one neutral record."""
