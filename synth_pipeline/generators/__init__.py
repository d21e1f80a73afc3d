"""Generators: one published method, one file; and the controls that every leaderboard shows."""

from synth_pipeline.registry import Registry

GENERATORS = Registry(
    "generator",
    {
        "synther": "synth_pipeline.generators.synther:SynthER",
        "noise": "synth_pipeline.generators.controls:Noise",
        "smote": "synth_pipeline.generators.controls:Smote",
        "copula": "synth_pipeline.generators.controls:Copula",
        "duplicate": "synth_pipeline.generators.controls:Duplicate",
        "vae": "synth_pipeline.generators.vae:VAE",
    },
)
