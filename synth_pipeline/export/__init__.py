"""Augmented datasets for others: Minari, D4RL-style HDF5, converters, card. Torch-free."""
