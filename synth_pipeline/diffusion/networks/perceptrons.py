"""Several perceptrons of one shape side by side: every layer is one batched matrix product over the members.

Ensembles of critics and of dynamics, and single policies (one member): twice as fast as one network after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

Initial = Literal["uniform", "normal", "orthogonal"]


class Perceptrons(nn.Module):
    """`members` independent perceptrons.

    Args:
        sizes: Units of every layer, input and output included.
        members: How many.
        generator: Source of the initial weights.
        initial: `uniform`: weights and biases within 1/sqrt(fan-in), as torch's `Linear`; `normal`: weights with
            standard deviation 1/sqrt(fan-in), biases zero; `orthogonal`: as `torch.nn.init.orthogonal_`, biases zero.
        activation: Between the layers; may work in place.
        normalize: Layer norm before every activation (Ba et al. 2016, arXiv:1607.06450).
        last_scale: Factor on the initial weights of the last layer.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        members: int = 1,
        generator: torch.Generator,
        initial: Initial = "uniform",
        activation: Callable[[Tensor], Tensor] = torch.relu_,
        normalize: bool = False,
        last_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.activation, self.normalize, self.members = activation, normalize, members
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            weight, bias = INITIAL[initial](members, fan_in, fan_out, generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))  # flat: trainers decay matrices, and biases are none
        with torch.no_grad():
            self.weights[-1].mul_(last_scale)
            self.biases[-1].mul_(last_scale)
        hidden = [members * size for size in sizes[1:-1]] if normalize else []
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(size)) for size in hidden])
        self.shifts = nn.ParameterList([nn.Parameter(torch.zeros(size)) for size in hidden])

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """`[b, inputs]` (the same for all) or `[members, b, inputs]` -> `[members, b, outputs]`.

        Args:
            x: Inputs.
            first: Only the first so many members; None: all.
        """
        return self.layer(-1, self.hidden(x, first), first)

    def hidden(self, x: Tensor, first: int | None = None) -> Tensor:
        """The units of the last hidden layer, `[members, b, units]`."""
        h = x if x.ndim == 3 else x.expand(first or self.members, *x.shape)
        for index in range(len(self.weights) - 1):
            h = self.layer(index, h, first)
            if self.normalize:
                h = layer_norm(h, h.shape[-1:])
                scale, shift = (self._by_member(p[index], first) for p in (self.scales, self.shifts))
                h = torch.addcmul(shift, h, scale)
            h = self.activation(h)
        return h

    def layer(self, index: int, h: Tensor, first: int | None = None) -> Tensor:
        """One affine map."""
        weight = self.weights[index]
        weight = weight if first is None else weight[:first]  # a slice of all would cost a copy in the backward pass
        return torch.baddbmm(self._by_member(self.biases[index], first), h, weight)

    def _by_member(self, flat: Tensor, first: int | None) -> Tensor:
        by_member = flat.view(self.members, 1, -1)
        return by_member if first is None else by_member[:first]


def _uniform(members: int, fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    limit = fan_in**-0.5
    weight = torch.empty(members, fan_in, fan_out).uniform_(-limit, limit, generator=generator)
    return weight, torch.empty(members * fan_out).uniform_(-limit, limit, generator=generator)


def _normal(members: int, fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    weight = torch.randn(members, fan_in, fan_out, generator=generator) / fan_in**0.5
    return weight, torch.zeros(members * fan_out)


def _orthogonal(members: int, fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    weight = torch.empty(members, fan_in, fan_out)
    for member in weight:
        nn.init.orthogonal_(member, generator=generator)
    return weight, torch.zeros(members * fan_out)


INITIAL = {"uniform": _uniform, "normal": _normal, "orthogonal": _orthogonal}
