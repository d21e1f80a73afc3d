"""The diffusion core: schedules, parametrisations, one sampling loop, solver steps, guidance, projections."""
