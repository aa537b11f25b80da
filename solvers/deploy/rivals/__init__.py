"""What engineers would run instead: recipes with layouts from the field, each given all that the planner has."""
