"""Pure functions from data to matplotlib figures."""
