"""Where datasets come from: Minari, D4RL-style HDF5, npz and dicts, stores, and our own collection. Torch-free."""

from synth_pipeline.sources.load import load, resolve
from synth_pipeline.sources.real import real_source

__all__ = ["load", "real_source", "resolve"]
