"""The gradient of the filters of a depthwise convolution, compiled, for what oneDNN has no fast kernel for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from fastcomus.backends.compiled import compile_function

_BLOCK = 128  # channels at a time, whose sums stay in the processor's first cache


def compute_filter_gradient(
    gradient: torch.Tensor,
    input: torch.Tensor,
    sides: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> torch.Tensor:
    """Compute the gradient of the filters of a depthwise convolution, the same bytes with any number of threads.

    Args:
        gradient: Of the output, (N, C, H', W') float32.
        input: Of the convolution, (N, C, H, W) float32.
        sides: Height and width of a filter.
        stride: Pixels from one output to the next.
        padding: Rows and columns added at each side of the input.
        dilation: How far the elements of a filter lie apart, in pixels.

    Returns:
        (C, 1, height, width) float32.
    """
    planes = [one.detach().permute(0, 2, 3, 1).contiguous().numpy() for one in (gradient, input)]
    channels, threads = input.shape[1], torch.get_num_threads()
    result = np.zeros((*sides, channels), np.float32)

    def add_block(start: int) -> None:
        _add_products(*planes, result, *stride, *padding, *dilation, start, min(start + _BLOCK, channels))

    starts = range(0, channels, _BLOCK)
    if min(threads, len(starts)) == 1:
        list(map(add_block, starts))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(add_block, starts))
    return torch.from_numpy(result).permute(2, 0, 1)[:, None].contiguous()


@compile_function
def _add_products(  # type: ignore[no-untyped-def]
    gradient, input, result, stride_y, stride_x, top, left, apart_y, apart_x, first, end
):
    """Fill channels `first` to `end` of the result (height, width, C) from (N, H', W', C) and (N, H, W, C)."""
    images, rows, columns, _ = gradient.shape
    tall, wide, _ = result.shape
    count = end - first
    sums = np.empty((tall, wide, count), np.float32)  # of one image, since long sums of float32 lose digits
    for image in range(images):
        sums[:] = 0
        for row in range(rows):
            for down in range(tall):
                y = row * stride_y - top + down * apart_y
                if y < 0 or y >= input.shape[1]:
                    continue
                for column in range(columns):
                    own = gradient[image, row, column, first:end]
                    for across in range(wide):
                        x = column * stride_x - left + across * apart_x
                        if x < 0 or x >= input.shape[2]:
                            continue
                        other = input[image, y, x, first:end]
                        into = sums[down, across]
                        for channel in range(count):
                            into[channel] += own[channel] * other[channel]
        result[:, :, first:end] += sums
