"""One call each, without a run directory: for notebooks, scripts and other people's programs."""
