"""Synthetic experience: encode a dataset, sample a store, judge how faithful it is."""
