"""How a plan is found."""

import placement  # noqa: F401  # finds where numba can keep compiled kernels, before any is defined
