"""Pictures: pure functions from arrays to a Matplotlib figure. Nothing is computed here that a number is made from."""
