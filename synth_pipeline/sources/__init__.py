"""Where datasets come from: Minari, D4RL HDF5, npz or dict, and collection in simulators. Torch-free."""
