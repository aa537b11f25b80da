"""The study of HBM: what fills it, what frees it, and what that buys."""
