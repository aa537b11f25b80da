"""What predictions are held against: other ways to predict the same measurements."""
