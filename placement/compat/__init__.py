"""Functions with the signatures of other projects, so that they can be swapped in without a change."""
