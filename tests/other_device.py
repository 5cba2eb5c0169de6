"""A device beside the CPU for tests: its tensors cannot be mixed with the host's, and every transfer is seen.

Its operations are computed by the CPU, behind tensors that say that they lie on "lazy", a device of torch's that has no
code of its own here. As on a GPU, operations on tensors of both places are errors, and so is NumPy on one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

OTHER = torch.device("lazy", 0)


@dataclass
class Transfers:
    """Shapes of what was copied `up` to the device and `down` from it."""

    up: list[tuple[int, ...]] = field(default_factory=list)
    down: list[tuple[int, ...]] = field(default_factory=list)


class _There(torch.Tensor):
    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> _There:
        strides = inner.stride() if inner.layout == torch.strided else None
        with torch.inference_mode(False):  # else no view of it could be taken
            made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls, inner.shape, strides=strides, dtype=inner.dtype, device=OTHER
            )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a tensor of the other device, outside of simulate_device()")


class _Mode(TorchDispatchMode):
    def __init__(self, seen: Transfers) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.is_inference_mode_enabled():  # what is made of other operations comes whole
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        there = [one for one in given if isinstance(one, _There)]
        asked = kwargs.get("device")
        is_there = bool(there) if asked is None else torch.device(asked).type == OTHER.type
        if asked is None and there and not isinstance(given[0], _There):
            is_there = False  # copied into a tensor of the host
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        name = str(func)
        if name == "aten._to_copy.default" and asked is not None and is_there != bool(there):
            (self.seen.up if is_there else self.seen.down).append(tuple(args[0].shape))
        elif name == "aten.copy_.default" and isinstance(args[0], _There) != isinstance(args[1], _There):
            (self.seen.up if isinstance(args[0], _There) else self.seen.down).append(tuple(args[1].shape))
        elif there:
            beside = [one for one in given if not isinstance(one, _There) and one.dim()]
            assert not beside, f"{func} on tensors of both devices"
        inner_args, inner_kwargs = tree_map(lambda one: one.inner if isinstance(one, _There) else one, (args, kwargs))
        if not (is_there or there):
            return func(*args, **kwargs)
        with torch.inference_mode():
            found = func(*inner_args, **inner_kwargs)
        return self._wrap(found, args, inner_args) if is_there else tree_map(_release, found)

    def _wrap(self, found: Any, args: Any, inner_args: Any) -> Any:
        """Results are on the device; what was written in place stays the same tensor."""
        before, after = tree_flatten(args)[0], tree_flatten(inner_args)[0]
        own = {id(inner): outer for outer, inner in zip(before, after, strict=True) if isinstance(outer, _There)}
        values, shape = tree_flatten(found)
        made = [_place(one, own) if isinstance(one, torch.Tensor) else one for one in values]
        return tree_unflatten(made, shape)


def _release(found: Any) -> Any:
    """A tensor of the host that may be written to outside of inference mode."""
    return found.clone() if isinstance(found, torch.Tensor) and found.is_inference() else found


def _place(inner: torch.Tensor, own: dict[int, Any]) -> torch.Tensor:
    return own[id(inner)] if id(inner) in own else _There(inner)


@contextmanager
def simulate_device() -> Iterator[Transfers]:
    """Make `OTHER` a device that computes; yields what goes there and back."""
    seen = Transfers()
    with _Mode(seen):
        yield seen
