"""synth-pipeline: diffusion-made data for offline RL, generated at scale, proved, and judged honestly."""

__version__ = "0.1.0"
