"""What a checkpoint is quantized to: the statement that it carries, and what that means for each projection."""
