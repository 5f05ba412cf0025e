"""Where a chain's real transitions come from: pixels through a frozen encoder, or states as they are."""
