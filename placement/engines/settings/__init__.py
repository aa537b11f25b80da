"""Settings of engines and communication libraries: every name that there is, and what those that matter are for."""
