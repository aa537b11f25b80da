"""The planner's splits next to those that engineers configured, at the same model, GPUs, lengths and clients."""
