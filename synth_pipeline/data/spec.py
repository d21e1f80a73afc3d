"""What a dataset is: its columns, its environment, its horizon and the references that scores are read against."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field as Setting
from pydantic import field_validator

from synth_pipeline.config import Config
from synth_pipeline.data.fields import Field
from synth_pipeline.errors import unknown_name

ID_PATTERN = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+")


class DatasetSpec(Config):
    """Columns and meaning of a dataset; stored with every model, store and export."""

    dataset_id: str = Setting(description="catalog or Minari id, e.g. 'hopper/medium-replay'")
    fields: tuple[Field, ...] = Setting(description="columns of one transition, in order")
    environment: str | None = Setting(None, description="name in the environment registry; none: no simulator known")
    horizon: int | None = Setting(None, ge=1, description="time limit of an episode, steps")
    reference_min: float | None = Setting(None, description="return of the uniform-random policy (normalised score 0)")
    reference_max: float | None = Setting(None, description="return of the reference policy (normalised score 100)")
    licence: str | None = Setting(None, description="licence of the data")
    provenance: dict[str, Any] = Setting(default_factory=dict, description="recipe, versions, seeds: plain JSON")

    @field_validator("dataset_id")
    @classmethod
    def _safe_id(cls, value: str) -> str:
        if not ID_PATTERN.fullmatch(value):
            raise ValueError("ids are parts of letters, digits, '_' and '-' joined by '/'")
        return value

    def field(self, name: str) -> Field:
        """The column called `name`.

        Raises:
            UnknownNameError: With the nearest column.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise unknown_name("column", name, (field.name for field in self.fields))

    def has(self, name: str) -> bool:
        """Whether the dataset has a column called `name`."""
        return any(field.name == name for field in self.fields)

    @property
    def observation_size(self) -> int:
        """Components of one observation."""
        return self.field("observations").size

    @property
    def action_size(self) -> int:
        """Components of one action (a discrete action has one)."""
        return self.field("actions").size


def transition_fields(observation_size: int, action: Field, *, extra: tuple[Field, ...] = ()) -> tuple[Field, ...]:
    """The usual columns: observations, actions, rewards, next_observations, terminations (and `extra`).

    Args:
        observation_size: Components of one observation.
        action: The action column, with its bounds; it is renamed `actions`.
        extra: Further columns, e.g. `costs`.
    """
    return (
        Field(name="observations", shape=(observation_size,)),
        action.replace(name="actions"),
        Field(name="rewards"),
        Field(name="next_observations", shape=(observation_size,)),
        Field(name="terminations", kind="binary"),
        *extra,
    )
