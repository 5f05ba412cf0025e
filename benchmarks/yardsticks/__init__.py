"""Plain implementations of the published computations, to measure against."""
