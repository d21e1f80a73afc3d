"""Evaluation: what an actor is worth, what data are worth to agents, and how sure that is; all of it fixed before."""
