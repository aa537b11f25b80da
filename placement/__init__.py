"""What a plan is and what it costs."""

__version__ = "0.1.0"
