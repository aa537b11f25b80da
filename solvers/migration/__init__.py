"""From a placement that runs to a better one, with few moves."""
