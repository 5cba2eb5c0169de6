"""Streams of a thread's own, so that its work on a GPU does not wait behind what another thread launched since."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

Result = TypeVar("Result")
_threads = threading.local()


def mark_event(device: torch.device) -> torch.cuda.Event | None:
    """Record what this thread has launched on a device so far, for `run_on_own_stream`; None on the CPU."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def run_on_own_stream(
    device: torch.device,
    events: Iterable[torch.cuda.Event | None],
    work: Callable[[], Result],
    list_tensors: Callable[[Result], Iterable[torch.Tensor]],
) -> Result:
    """Do some work on a stream of this thread, and wait for it; on the CPU, do it.

    What the work reads must be held by the caller until it returns.

    Args:
        device: Where the work is done.
        events: What it reads is complete once these have happened; None for what is complete.
        work: The work.
        list_tensors: Lists the tensors in its result, which other threads will read on the default stream.

    Returns:
        Its result, complete.
    """
    if device.type != "cuda":
        return work()
    streams: dict[torch.device, torch.cuda.Stream] = _threads.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)
    stream = streams[device]
    for event in {id(one): one for one in events if one is not None}.values():
        stream.wait_event(event)
    with torch.cuda.stream(stream):
        result = work()
    stream.synchronize()
    for tensor in list_tensors(result):
        if tensor.is_cuda:  # its memory is this stream's to give away again, once the other has read it
            tensor.record_stream(torch.cuda.default_stream(device))
    return result
