"""Environments as models of the world: make, reset to an observation, step, terminate, roll out. Torch-free."""
