"""Several multi-layer perceptrons of one shape side by side, their gradients written out: critics and policies.

Every layer is one batched matrix product over the members, all parameters lie in one vector, and a pass forward or
backward is one node of autograd: networks this small lose more time between the products than is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.linalg import vecdot

Initial = Literal["uniform", "orthogonal"]
EPSILON = 1e-5  # of the layer norm
_relu_gradient = torch.ops.aten.threshold_backward.grad_input


class Norm(NamedTuple):
    """Scale and shift of a layer norm, `[m, 1, units]` each."""

    scale: Tensor
    shift: Tensor


class Layer(NamedTuple):
    """Parameters of one layer, or their gradients: views into one vector.

    Attributes:
        weight: `[m, inputs, outputs]`.
        bias: `[m, 1, outputs]`.
        norm: Of a hidden layer that has one.
    """

    weight: Tensor
    bias: Tensor
    norm: Norm | None = None


class Form:
    """Where the parameters of every layer lie in the vector.

    Args:
        sizes: Units of every layer, input and output included.
        members: m.
        normalize: Layer norm in the hidden layers.
    """

    def __init__(self, sizes: Sequence[int], members: int, *, normalize: bool) -> None:
        self._shapes: list[list[tuple[int, ...]]] = []
        for fan_in, fan_out in pairwise(sizes):
            flat = (members, 1, fan_out)
            hidden = normalize and len(self._shapes) < len(sizes) - 2
            self._shapes.append([(members, fan_in, fan_out), flat, *([flat, flat] if hidden else [])])
        self._counts = [torch.Size(shape).numel() for shapes in self._shapes for shape in shapes]
        self.parameters = sum(self._counts)

    def layers(self, vector: Tensor, first: int | None = None) -> list[Layer]:
        """Views of a vector of parameters, of all members or the first few."""
        parts, found = iter(torch.split(vector, self._counts)), []
        for shapes in self._shapes:
            views = [next(parts).view(shape) for shape in shapes]
            weight, bias, *norm = views if first is None else [view[:first] for view in views]
            found.append(Layer(weight, bias, Norm(*norm) if norm else None))
        return found


class EnsembleMLP(nn.Module):
    """`members` independent multi-layer perceptrons with rectified units.

    Args:
        sizes: Units of every layer, input and output included.
        members: How many.
        generator: Source of the initial weights.
        initial: `uniform`: weights and biases within 1/sqrt(fan-in), as torch's `Linear`; `orthogonal`: as
            `torch.nn.init.orthogonal_`, biases zero.
        normalize: Layer norm before every activation (Ba et al. 2016, arXiv:1607.06450).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        members: int = 1,
        generator: torch.Generator,
        initial: Initial = "uniform",
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.members: int = members
        self._form = Form(sizes, members, normalize=normalize)
        self._made: dict[int | None, list[Layer]] = {}
        self.vector = nn.Parameter(torch.zeros(self._form.parameters))
        with torch.no_grad():
            for layer in self.layers:
                _, fan_in, fan_out = layer.weight.shape
                weight, bias = INITIAL[initial](members, fan_in, fan_out, generator)
                layer.weight.copy_(weight)
                layer.bias.copy_(bias.view_as(layer.bias))
                if layer.norm is not None:
                    layer.norm.scale.fill_(1.0)

    @property
    def layers(self) -> list[Layer]:
        """The parameters, layer by layer."""
        return self._form.layers(self.vector)

    def __getstate__(self) -> dict[str, Any]:
        """Without the views: a copy has its own."""
        return {**self.__dict__, "_made": {}}

    def _views(self, first: int | None) -> list[Layer]:
        """`layers` of the first members, without gradients: made once, as long as the vector lies where it lay."""
        found = self._made.get(first)
        if found is None or found[0].weight.data_ptr() != self.vector.data_ptr():
            found = self._made[first] = self._form.layers(self.vector.detach(), first)
        return found

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """`[b, inputs]` (the same for all) or `[members, b, inputs]` -> `[members, b, outputs]`.

        Args:
            x: Inputs.
            first: Only the first so many members; None: all.
        """
        if not torch.is_grad_enabled():  # acting, targets: nothing is kept
            return _run(self._views(first), x)[0]
        outputs: Tensor = _Pass.apply(x, self.vector, self._form, self._views(first), first)  # type: ignore[no-untyped-call]
        return outputs


class _Pass(torch.autograd.Function):
    """y(x, parameters) and its gradients; saved are the inputs of every layer and what the layer norm gave."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, vector: Tensor, form: Form, layers: list[Layer], first: int | None) -> Tensor:
        outputs, inputs, normals = _run(layers, x)
        ctx.save_for_backward(vector, *inputs, *normals)
        ctx.form, ctx.layers, ctx.first, ctx.shared = form, layers, first, x.ndim == 2
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        vector, *saved = ctx.saved_tensors  # of the vector, that it has not changed since
        layers = ctx.layers
        inputs, normals = saved[: len(layers)], saved[len(layers) :]
        gradient: Tensor | None = None
        of_layers: list[Layer | None] = [None] * len(layers)
        if ctx.needs_input_grad[1]:
            gradient = torch.zeros_like(vector) if ctx.first else torch.empty_like(vector)
            of_layers = ctx.form.layers(gradient, ctx.first)
        for index in range(len(layers) - 1, 0, -1):
            _collect(of_layers[index], inputs[index], g)
            g = _through(layers[index], g)
            _relu_gradient(g, inputs[index], 0, grad_input=g)
            if normals:
                _denormalize(g, layers[index - 1], of_layers[index - 1], *normals[2 * index - 2 : 2 * index])
        _collect(of_layers[0], inputs[0], g)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _through(layers[0], g)
            of_x = of_x.sum(0) if ctx.shared else of_x
        return of_x, gradient, None, None, None


def _run(layers: list[Layer], x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Outputs, the inputs of every layer, and what `_normalized` gave in each hidden one."""
    h = x if x.ndim == 3 else x.expand(len(layers[0].weight), *x.shape)
    inputs: list[Tensor] = [h]
    normals: list[Tensor] = []
    for layer in layers[:-1]:
        h = torch.baddbmm(layer.bias, h, layer.weight)
        if layer.norm is not None:
            normals += _normalized(h)
            h = torch.addcmul(layer.norm.shift, h, layer.norm.scale)
        inputs.append(h.clamp_min_(0))
    return _affine(layers[-1], h), inputs, normals


def _affine(layer: Layer, h: Tensor) -> Tensor:
    """h W + b; a single column is a dot product, for which the batched product has no fast way."""
    if layer.weight.shape[2] > 1:
        return torch.baddbmm(layer.bias, h, layer.weight)
    column: Tensor = vecdot(h, layer.weight.mT)
    return column.unsqueeze_(-1).add_(layer.bias)


def _through(layer: Layer, g: Tensor) -> Tensor:
    """Gradient of a layer's inputs from that of its outputs."""
    return g * layer.weight.mT if layer.weight.shape[2] == 1 else torch.bmm(g, layer.weight.mT)


def _collect(into: Layer | None, h: Tensor, g: Tensor) -> None:
    """Gradients of weight and bias, where they are asked for."""
    if into is None:
        return
    torch.sum(g, 1, keepdim=True, out=into.bias)
    if g.shape[2] == 1:
        torch.sum(h * g, 1, out=into.weight[:, :, 0])
    else:
        torch.bmm(h.mT, g, out=into.weight)


def _normalized(h: Tensor) -> tuple[Tensor, Tensor]:
    """Layer norm in place; what it gave, and one over the standard deviation, `[m, b, 1]`."""
    h.sub_(h.mean(-1, keepdim=True))
    inverse = vecdot(h, h).div_(h.shape[-1]).add_(EPSILON).rsqrt_().unsqueeze_(-1)
    return h.mul_(inverse), inverse


def _denormalize(g: Tensor, layer: Layer, into: Layer | None, normal: Tensor, inverse: Tensor) -> None:
    """Gradient after a layer norm to that before it, in place; those of scale and shift are collected."""
    assert layer.norm is not None
    if into is not None and into.norm is not None:
        torch.sum(g, 1, keepdim=True, out=into.norm.shift)
        torch.sum(g * normal, 1, keepdim=True, out=into.norm.scale)
    g.mul_(layer.norm.scale)
    along = vecdot(g, normal).div_(g.shape[-1]).unsqueeze_(-1)
    g.sub_(g.mean(-1, keepdim=True)).addcmul_(normal, along, value=-1).mul_(inverse)


def _uniform(members: int, fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    limit = fan_in**-0.5
    weight = torch.empty(members, fan_in, fan_out).uniform_(-limit, limit, generator=generator)
    return weight, torch.empty(members * fan_out).uniform_(-limit, limit, generator=generator)


def _orthogonal(members: int, fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    weight = torch.empty(members, fan_in, fan_out)
    for member in weight:
        nn.init.orthogonal_(member, generator=generator)
    return weight, torch.zeros(members * fan_out)


INITIAL = {"uniform": _uniform, "orthogonal": _orthogonal}
