"""What layers are made of: token mixers (attention, linear attention, state space), feed-forward blocks."""
