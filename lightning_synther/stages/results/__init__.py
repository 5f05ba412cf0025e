"""What a finished run says, and what several runs say together."""
