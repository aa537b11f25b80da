"""The best order of a pipeline's passes: list scheduling at any size, a job shop solved exactly where it is small."""
