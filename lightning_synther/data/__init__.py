"""Data: V-D4RL files, windows, replay, stores of transitions, and the data modules over them."""
