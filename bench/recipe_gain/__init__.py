"""What a planned deployment gains over the best recipe, over many scenarios."""
