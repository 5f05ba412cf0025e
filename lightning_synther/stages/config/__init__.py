"""What a config says of a run: its sections, the class that it names, and what of them no run can honour."""
