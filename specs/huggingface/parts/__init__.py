"""Parts that families are composed of."""
