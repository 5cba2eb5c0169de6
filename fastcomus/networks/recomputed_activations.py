"""Training in about half of the memory: what follows a batch normalisation is computed again when it is needed.

A convolution keeps its input for its gradient, and the normalisation and the activation before it keep theirs. Of these
only the input of the normalisation is kept here. What follows from it is computed once more on the way back, number by
number and to the same bits; no convolution is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_RELUS = (functional.hardtanh, functional.relu6, functional.relu)


class RecomputedActivations(TorchFunctionMode):
    """A context in which networks in training keep less for their backward pass, which gives the same gradients.

    It concerns batch normalisations by statistics of the batch, the ReLUs right behind them, and the convolutions that
    take their outputs. Not for compiled networks.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is functional.batch_norm and torch.is_grad_enabled():
            made = function(*args, **kwargs)
            return _attach(made, _match_batch_norm(*args, **kwargs))
        recipe = _find_recipe(args[0]) if args and torch.is_grad_enabled() else None
        if recipe is not None and function is functional.conv2d:
            return _call(function, args, kwargs, recipe)
        if recipe is not None and function in _RELUS:
            rest = args[1:]  # without the tensor itself, which is not to be held
            result = _Recipe(lambda: function(recipe.compute(), *rest, **kwargs))
            return _attach(_call(function, args, kwargs, result), result)
        return function(*args, **kwargs)


class _Recipe:
    """How a tensor is computed again; it is computed once for all that keep it."""

    def __init__(self, work: Callable[[], torch.Tensor]) -> None:
        self.work = work
        self.keepers = 0  # that have not asked for it yet
        self.made: torch.Tensor | None = None

    def keep(self) -> _Recipe:
        self.keepers += 1
        return self

    def give(self) -> torch.Tensor:
        """Give the tensor to one of those that keep it."""
        made = self.compute() if self.made is None else self.made
        self.keepers -= 1
        self.made = made if self.keepers > 0 else None
        return made

    @torch.no_grad()
    def compute(self) -> torch.Tensor:
        return self.work()


def _match_batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> _Recipe | None:
    """Turn the arguments of functional.batch_norm into a recipe that leaves running statistics alone."""
    if not training:
        return None
    kept = input.detach()
    return _Recipe(lambda: functional.batch_norm(kept, None, None, weight, bias, True, momentum, eps))


def _attach(tensor: torch.Tensor, recipe: _Recipe | None) -> torch.Tensor:
    tensor._recipe = recipe, tensor._version  # type: ignore[attr-defined]
    return tensor


def _find_recipe(tensor: object) -> _Recipe | None:
    """Return the recipe of a tensor that has not been changed since it was attached."""
    recipe, version = getattr(tensor, "_recipe", (None, 0))
    return recipe if recipe is not None and tensor._version == version else None  # type: ignore[attr-defined]


def _call(function: Any, args: Any, kwargs: Any, kept_as: _Recipe) -> torch.Tensor:
    """Call a convolution or a ReLU; `kept_as`: recipe of a convolution's input, or of a ReLU's output.

    A ReLU keeps its input, a copy of it or its output, to know where gradients pass; its output always tells.
    """
    # Hooks live as long as what is kept, so that they must not hold the tensor itself.
    shape, kind, address = args[0].shape, args[0].dtype, args[0].data_ptr()
    is_relu = function in _RELUS

    def pack(kept: torch.Tensor) -> torch.Tensor | _Recipe:
        is_known = kept.shape == shape and kept.dtype == kind and (is_relu or kept.data_ptr() == address)
        return kept_as.keep() if is_known else kept

    with saved_tensors_hooks(pack, lambda kept: kept.give() if isinstance(kept, _Recipe) else kept):
        return function(*args, **kwargs)
