"""What follows from a state and an action: the probabilistic ensemble, and models of it that can be sampled."""
