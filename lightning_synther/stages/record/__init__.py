"""What a run directory remembers of its stages, and how the processes of a run agree on it."""
