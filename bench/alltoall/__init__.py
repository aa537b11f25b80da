"""Runs a plan's all-to-all for real: its tokens, its dispatch, its message rule, over torch.distributed."""
