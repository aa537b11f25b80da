"""The engines' dispatch rules: plans made for them, and what the engines' own functions make of these."""
