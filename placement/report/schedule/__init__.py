"""A pipeline's run as a chart in text, a drawing and a trace."""
