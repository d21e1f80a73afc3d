"""Offline-RL agents: one published method, one file; the judges of what synthetic data is worth."""

from synth_pipeline.registry import Registry

AGENTS = Registry(
    "agent",
    {
        "bc": "synth_pipeline.agents.bc:BC",
        "td3_bc": "synth_pipeline.agents.td3_bc:TD3BC",
        "iql": "synth_pipeline.agents.iql:IQL",
        "percent_bc": "synth_pipeline.agents.percent_bc:PercentBC",
        "awac": "synth_pipeline.agents.awac:AWAC",
        "cql": "synth_pipeline.agents.cql:CQL",
        "onestep": "synth_pipeline.agents.onestep:OneStep",
        "rebrac": "synth_pipeline.agents.rebrac:ReBRAC",
        "decision_transformer": "synth_pipeline.agents.decision_transformer:DecisionTransformer",
        "morel": "synth_pipeline.agents.morel:MOReL",
    },
)
