"""BC on the best episodes (10 % BC: Chen et al. 2021, arXiv:2106.01345, sec. 5.1), by undiscounted return.

The share is one of episodes, as CORL counts, not of transitions; it is rounded up. Episodes are the data's own, of any
length, ended by termination or by the time limit; one that was cut off has no return yet. Of synthetic episodes the
best ones are cloned likewise, in the mixture's share. Observations are scaled by all real rows, as for BC.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field as Setting

from synth_pipeline.agents.base import AgentConfig
from synth_pipeline.agents.bc import BC, BCConfig
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.agents.scaling import complete
from synth_pipeline.data.containers import Episodes
from synth_pipeline.errors import SourceError


class PercentBCConfig(BCConfig):
    """Numbers of BC, and how many episodes are the best."""

    best: float = Setting(0.1, gt=0, le=1, description="share of the episodes that are cloned")


class PercentBC(BC):
    """min |pi(s) - a|^2 over the episodes of highest return."""

    kind: ClassVar[str] = "percent_bc"
    needs_episodes: ClassVar[bool] = True
    settings: ClassVar[type[AgentConfig]] = PercentBCConfig

    def make_replay(self, data: Mixture) -> Any:
        """The rows of the best episodes.

        Raises:
            SourceError: When there are no episodes, or rows are mixed in that belong to none.
        """
        real, made, share = data.real.episodes, data.synthetic_episodes, self.config.best
        if real is None:
            raise _no_returns(f"{len(data.real):,} rows without episodes", "a dataset with episodes")
        if data.synthetic is not None and data.share > 0 and made is None:
            raise _no_returns(f"{len(data.synthetic):,} synthetic rows without episodes", "synthetic episodes")
        chosen = None if made is None else best_episodes(made, share)
        whole = real.take(np.flatnonzero(complete(data.real)))
        best = replace(data.real, episodes=best_episodes(whole, share), episode_ids=None)
        return super().make_replay(replace(data, real=best, synthetic=None, synthetic_episodes=chosen))


def _no_returns(found: str, accepted: str) -> SourceError:
    what = "percent_bc picks episodes by their return, and these rows have none"
    return SourceError(what, found=found, accepted=accepted, fix="another agent, e.g. bc")


def best_episodes(episodes: Episodes, share: float) -> Episodes:
    """The share of highest return, rounded up, in the order of the data; of equal ones the earlier."""
    count = math.ceil(round(share * len(episodes), 9))  # 0.07 * 100 is a little above 7
    return episodes.take(np.sort(np.argsort(-episodes.returns, kind="stable")[:count]))
