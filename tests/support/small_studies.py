"""A study of the toy point mass that takes seconds."""

from synth_pipeline.evaluation.study import StudyConfig

QUICK = {"gradient_steps": 60, "width": 16, "batch_size": 32, "log_every": 10}
PLAIN = {
    "dataset": "toy/points",
    "sizes": [150],
    "seeds": 2,
    "arms": {"real": {}, "smote": {"kind": "smote", "rows": 200}},
    "agents": {"bc": QUICK},
    "episodes": 1,
    "evaluations": 3,
    "spacing": 0.2,
}


def study(**changes):
    return StudyConfig.parse({**PLAIN, **changes})
