"""Three verdicts on synthetic data: fidelity, novelty, utility. Torch-free."""
