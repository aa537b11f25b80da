"""What layers are made of: token mixers (attention, linear attention, state space) and feed-forward blocks."""
