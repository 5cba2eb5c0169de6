"""The custom kernels, compiled for every GPU and run on the CPU, against the CPU backend."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_on_cpu.cpu_kernels import CpuKernels, build, functions_with_barriers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import TESTS
from pycocotools import mask as coco_mask
from scipy import ndimage
from skimage import data

from fastcomus.backends import choose, gpu_images, gpu_objects, interface, kernel_loader, ragged_batches
from fastcomus.backends.cpu import compute_otsu_threshold, resize_maps

FILES = ("crop_resize", "mask_boxes", "assemble_masks", "enlarge_maps", "run_lengths")
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
HOST = torch.device("cpu")
CPU = choose.select("cpu")
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def backwards(kernels: CpuKernels) -> CpuKernels:
    """The same libraries, blocks and threads in the opposite order."""
    other = CpuKernels(backwards=True)
    other._libraries = kernels._libraries
    return other


# -- compilation ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_kernels_compile_for_every_gpu_without_spilling(file: str) -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    include = cuda_headers()
    source = kernel_loader.read_kernel_source(file).encode()
    for architecture in ARCHITECTURES:
        _, program = nvrtc.nvrtcCreateProgram(source, f"{file}.cu".encode(), 0, [], [])
        options = [f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v", f"-I{include}"]
        options += kernel_loader.OPTIONS
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [one.encode() for one in options])
        _, length = nvrtc.nvrtcGetProgramLogSize(program)
        log = bytearray(length)
        nvrtc.nvrtcGetProgramLog(program, log)
        told = log.decode()
        assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, told
        registers = re.findall(r"entry function '(\w+)'.*?Used (\d+) registers", told, re.DOTALL)
        print(f"sm_{architecture} {file}: {', '.join(f'{name} {count}' for name, count in registers)} registers")
        assert {name for name, _ in registers} == set(kernel_loader.parse_signatures(file))
        spills = [int(count) for count in re.findall(r"(\d+) bytes spill", told)]
        assert len(spills) == 2 * len(registers) and not any(spills), told
        assert "warning" not in told, told
        # A block of 256 threads shares 65,536 registers: at 64 each four blocks fit.
        assert all(int(count) <= 64 for _, count in registers), registers


def cuda_headers() -> Path:
    """The folder of cuda_fp16.h, from the packages that torch brings or from the toolkit."""
    import nvidia

    roots = [Path(folder) for folder in nvidia.__path__]
    found = [file.parent for root in roots for file in sorted(root.glob("*/include/cuda_fp16.h"))]
    found += [file.parent for file in [Path("/usr/local/cuda/include/cuda_fp16.h")] if file.is_file()]
    if not found:
        pytest.skip("cuda_fp16.h is nowhere: neither in torch's packages nor in a CUDA toolkit")
    return found[0]


# -- crops --------------------------------------------------------------------------------------------------------


@st.composite
def image_batches(draw: st.DrawFn) -> tuple[list[np.ndarray], list[list[list[int]]]]:
    """Images of random pixels, each with boxes: many of one pixel, many at the border."""
    images, boxes = [], []
    for _ in range(draw(st.integers(0, 3))):
        height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        images.append(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        own = []
        for _ in range(draw(st.integers(0, 3))):
            x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
            x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
            own.append([x0, y0, x1, y1])
        boxes.append(own)
    return images, boxes


def crops_by_kernel(
    kernels: CpuKernels,
    images: ragged_batches.RaggedImages,
    boxes: list[list[list[int]]],
    size: int,
    dtype: torch.dtype = torch.float32,
    **statistics: list[float],
) -> torch.Tensor:
    all_boxes = torch.tensor([box for own in boxes for box in own], dtype=torch.int32).reshape(-1, 4)
    owners = torch.tensor([i for i, own in enumerate(boxes) for _ in own], dtype=torch.int32)
    return gpu_images.crop_resize(kernels, images, all_boxes, owners, size, dtype, **statistics)


def crops_by_backend(images: list[np.ndarray], boxes: list[list[list[int]]], size: int) -> torch.Tensor:
    crops = [CPU.crop_resize(i, np.array(own).reshape(-1, 4), size) for i, own in zip(images, boxes, strict=True)]
    return torch.cat([torch.empty((0, 3, size, size), dtype=torch.uint8), *crops]).float()


def assert_crops_agree(images: list[np.ndarray], boxes: list[list[list[int]]], size: int, found: torch.Tensor) -> None:
    expected = crops_by_backend(images, boxes, size)
    assert found.shape == expected.shape
    assert not found.numel() or (found.float() - expected).abs().max() <= 2


@MANY
@given(image_batches(), st.integers(1, 48))
def test_crops_are_those_of_the_cpu_backend(kernels: CpuKernels, batch: tuple, size: int) -> None:
    images, boxes = batch
    packed = ragged_batches.pack_images(images, HOST)
    found = crops_by_kernel(kernels, packed, boxes, size)
    assert_crops_agree(images, boxes, size, found)
    assert (crops_by_kernel(backwards(kernels), packed, boxes, size) == found).all()
    assert_crops_agree(images, boxes, size, crops_by_kernel(kernels, packed, boxes, size, torch.uint8))
    planar = [torch.from_numpy(one).permute(2, 0, 1).contiguous().permute(1, 2, 0) for one in images]
    assert (crops_by_kernel(kernels, ragged_batches.pack_images(planar, HOST), boxes, size) == found).all()


@MANY
@given(image_batches(), st.integers(1, 40), st.integers(0, 7), st.integers(1, 3))
def test_rows_may_be_padded_and_pixels_apart(
    kernels: CpuKernels, batch: tuple, size: int, padding: int, step: int
) -> None:
    images, boxes = batch
    parts, layouts, start = [], [], 5
    for image in images:
        height, width = image.shape[:2]
        row, column = width * (2 + step) + padding, 2 + step
        memory = np.full(height * row, 77, np.uint8)
        view = np.lib.stride_tricks.as_strided(memory, image.shape, (row, column, 1))
        view[:] = image
        parts.append(memory)
        layouts.append([start, row, column, 1])
        start += len(memory)
    pixels = torch.from_numpy(np.concatenate([np.full(5, 77, np.uint8), *parts]))
    sizes = tuple(image.shape[:2] for image in images)
    packed = ragged_batches.RaggedImages(pixels, torch.tensor(layouts, dtype=torch.int64).reshape(-1, 4), sizes)
    assert_crops_agree(images, boxes, size, crops_by_kernel(kernels, packed, boxes, size))


@pytest.mark.parametrize("shape", [(10_000, 1), (1, 10_000), (10_000, 3), (2, 9_999), (1, 1)])
@pytest.mark.parametrize("size", [1, 31, 300])
def test_extreme_images(kernels: CpuKernels, shape: tuple[int, int], size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    height, width = shape
    boxes = [[[0, 0, width, height], [width - 1, height - 1, width, height], [0, 0, 1, 1]]]
    found = crops_by_kernel(kernels, ragged_batches.pack_images([pixels], HOST), boxes, size)
    assert_crops_agree([pixels], boxes, size, found)


@pytest.mark.parametrize("size", [224, 256, 600])  # the last one in three blocks across
def test_crops_of_a_photograph(kernels: CpuKernels, size: int) -> None:
    photograph = data.astronaut()
    boxes = [[[100, 50, 300, 400], [0, 0, 512, 512], [0, 0, 20, 10], [511, 511, 512, 512], [0, 0, size % 512, 512]]]
    found = crops_by_kernel(kernels, ragged_batches.pack_images([photograph], HOST), boxes, size)
    assert_crops_agree([photograph], boxes, size, found)
    assert (found - crops_by_backend([photograph], boxes, size)).abs().mean() < 0.3  # the rounding to uint8


def test_crops_are_normalised_and_rounded_to_half_precision(kernels: CpuKernels) -> None:
    packed, boxes = ragged_batches.pack_images([data.astronaut()], HOST), [[[10, 20, 400, 300]]]
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    plain = crops_by_kernel(kernels, packed, boxes, 64)
    normalised = crops_by_kernel(kernels, packed, boxes, 64, mean=mean, std=std)
    by_torch = (plain - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert (normalised - by_torch).abs().max() < 1e-5
    half = crops_by_kernel(kernels, packed, boxes, 64, torch.float16, mean=mean, std=std)
    assert half.dtype == torch.float16 and (half == normalised.half()).all()


@pytest.mark.parametrize("box", [(257, 257), (300, 270), (500, 375), (640, 480), (2000, 1500), (4000, 260)])
def test_crops_read_hardly_more_than_the_box(box: tuple[int, int]) -> None:
    """Bytes that blocks read, counted byte by byte, and what the header of the kernel says."""
    counting = CpuKernels("-DCOUNT_READS")
    width, height = box
    pixels = ragged_batches.pack_images([np.zeros((height, width, 3), np.uint8)], HOST)
    size, output_bytes = 256, 2
    library = counting.library("crop_resize")
    library.watched_bytes_read.restype = ctypes.c_uint64
    library.watch(ctypes.c_void_p(pixels.pixels.data_ptr()), ctypes.c_uint64(pixels.pixels.numel()))
    crops_by_kernel(counting, pixels, [[[0, 0, width, height]]], size, torch.float16)
    read, written = library.watched_bytes_read(), 3 * size * size * output_bytes
    needed = 3 * width * height + written
    said = 3 * width * height * (1 + 1 / gpu_images.ROWS_PER_BAND)
    print(f"{width} x {height}: {read} bytes read, {(read + written) / needed:.3f} times what is needed")
    assert read + written <= 1.3 * needed
    assert read <= said * 1.01 + 6 * width * size / gpu_images.ROWS_PER_BAND  # rows that a band only touches


# -- masks and boxes ----------------------------------------------------------------------------------------------


@st.composite
def map_batches(draw: st.DrawFn) -> list[np.ndarray]:
    """Saliency maps of any sizes: few levels, so that thresholds are hit exactly, or many."""
    maps = []
    for _ in range(draw(st.integers(0, 4))):
        shape = draw(st.integers(1, 60)), draw(st.integers(1, 60))
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        levels = draw(st.sampled_from([1, 2, 3, 10, 255, 0]))
        one = rng.random(shape, np.float32)
        maps.append(one if levels == 0 else (np.rint(one * levels) / levels).astype(np.float32))
    return maps


def assert_masks_agree(found: ragged_batches.RaggedMasks, maps: list[np.ndarray], theta: str) -> None:
    masks = found.masks.split()
    assert len(masks) == len(maps) == len(found.boxes)
    for i, saliency in enumerate(maps):
        expected = CPU.find_masks(saliency[None], theta, 1)
        threshold = compute_otsu_threshold(saliency) if theta == "otsu" else float(theta)
        assert (masks[i].numpy() == (saliency > threshold)).all()
        assert int(found.areas[i]) == (expected.areas[0] if len(expected.areas) else 0)
        if len(expected.boxes):
            assert found.boxes[i].tolist() == expected.boxes[0].tolist()
            assert abs(float(found.scores[i]) - expected.scores[0]) < 1e-5


@MANY
@given(map_batches(), st.sampled_from(["otsu", "0.5", "0.0", "0.1", "0.3333"]))
def test_masks_and_boxes_are_those_of_the_cpu_backend(kernels: CpuKernels, maps: list[np.ndarray], theta: str) -> None:
    packed = ragged_batches.pack_maps(maps, torch.float32, HOST)
    found = gpu_images.threshold_masks(kernels, packed, theta)
    assert_masks_agree(found, maps, theta)
    again = gpu_images.threshold_masks(backwards(kernels), packed, theta)
    for one, other in ((found.areas, again.areas), (found.boxes, again.boxes), (found.scores, again.scores)):
        assert (one == other).all()
    measured = gpu_images.measure_masks(kernels, packed, found.masks)
    assert (measured.areas == found.areas).all() and (measured.boxes == found.boxes).all()


def test_masks_of_a_large_map(kernels: CpuKernels) -> None:
    """Many blocks share it, and levels lie at the bins' edges."""
    rng = np.random.default_rng(0)
    large = rng.integers(0, 511, (700, 500)).astype(np.float32) / 510
    maps = [large, rng.random((3, 2), np.float32), large[:, :1], np.clip(large * 1.5 - 0.4, 0, 1)]
    packed = ragged_batches.pack_maps(maps, torch.float32, HOST)
    assert_masks_agree(gpu_images.threshold_masks(kernels, packed, "otsu"), maps, "otsu")


@MANY
@given(map_batches())
def test_largest_part_is_scipys(kernels: CpuKernels, maps: list[np.ndarray]) -> None:
    packed = ragged_batches.pack_maps(maps, torch.float32, HOST)
    found = gpu_images.threshold_masks(kernels, packed, "0.55", largest_part=True)
    again = gpu_images.threshold_masks(backwards(kernels), packed, "0.55", largest_part=True)
    assert (found.masks.values == again.masks.values).all()
    for i, (mask, saliency) in enumerate(zip(found.masks.split(), maps, strict=True)):
        labels, parts = ndimage.label(saliency > 0.55, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=parts + 1)[1:]
        # SciPy numbers parts in the order of their first pixels, and argmax takes the first of equal ones.
        expected = labels == 1 + np.argmax(sizes) if parts else np.zeros(saliency.shape, bool)
        assert (mask.numpy() == expected).all()
        assert int(found.areas[i]) == expected.sum()
        if parts:
            ys, xs = np.nonzero(expected)
            assert found.boxes[i].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert abs(float(found.scores[i]) - saliency[expected].mean()) < 1e-5


def test_largest_part_of_a_spiral_and_a_comb(kernels: CpuKernels) -> None:
    """Parts whose pixels join late: the arms of a comb meet in the last row, a spiral's pixels follow one another."""
    comb = np.zeros((201, 200), np.float32)
    comb[:200, ::2], comb[200] = 1, 1
    spiral = np.zeros((41, 41), np.float32)
    y, x, dy, dx = 0, 0, 0, 1
    for length in [40, 40, *np.repeat(np.arange(40, 0, -2), 2)]:
        for _ in range(length):
            spiral[y, x] = 1
            y, x = np.clip(y + dy, 0, 40), np.clip(x + dx, 0, 40)
        dy, dx = dx, -dy
    alone = comb.copy()
    alone[200, 100:103] = 0  # in two
    packed = ragged_batches.pack_maps([comb, spiral, alone], torch.float32, HOST)
    found = gpu_images.threshold_masks(kernels, packed, "0.5", largest_part=True)
    for mask, saliency in zip(found.masks.split(), [comb, spiral, alone], strict=True):
        labels, _ = ndimage.label(saliency > 0.5, np.ones((3, 3)))
        assert (mask.numpy() == (labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))).all()


# -- maps to image size, masks to run lengths ------------------------------------------------------------------------


sides = st.integers(1, 70)


@MANY
@given(st.integers(0, 999), sides, sides, st.lists(st.tuples(sides, sides), max_size=4))
def test_maps_are_enlarged_as_torch_does(
    kernels: CpuKernels, seed: int, height: int, width: int, sizes: list[tuple[int, int]]
) -> None:
    coarse = torch.rand((len(sizes), height, width), generator=torch.Generator().manual_seed(seed))
    found = gpu_objects.enlarge_maps(kernels, coarse, sizes)
    again = gpu_objects.enlarge_maps(backwards(kernels), coarse, sizes)
    assert (found.values == again.values).all()
    for one, own, size in zip(found.split(), coarse, sizes, strict=True):
        assert (
            np.abs(one.numpy() - resize_maps(own[None].numpy(), size)[0]).max() < 1e-5
        )  # torch may fuse the steps of a place up to 70


@MANY
@given(map_batches(), st.sampled_from([0.0, 0.5, 0.95, 2.0]))
def test_run_lengths_are_cocos(kernels: CpuKernels, maps: list[np.ndarray], above: float) -> None:
    masks = [one > above for one in maps]
    packed = ragged_batches.pack_maps(masks, torch.uint8, HOST)
    changes = gpu_objects.count_changes(kernels, packed)
    ends = changes.mask_ends.tolist()
    places = gpu_objects.write_changes(backwards(kernels), packed, changes, ends[-1] if ends else 0)
    for mask, start, end in zip(masks, [0, *ends], ends, strict=False):
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert gpu_objects.encode_run_lengths(places[start:end], mask.shape) == expected


# -- class maps -----------------------------------------------------------------------------------------------------


@MANY
@given(st.data(), st.sampled_from([torch.uint8, torch.uint16]))
def test_class_maps_are_those_of_the_cpu_backend(kernels: CpuKernels, draw: st.DataObject, dtype: torch.dtype) -> None:
    shapes, first, saliency, image_sizes = [], [0], [], []
    rng = np.random.default_rng(draw.draw(st.integers(0, 999)))
    for _ in range(draw.draw(st.integers(0, 3))):
        size = draw.draw(st.integers(1, 40)), draw.draw(st.integers(1, 40))
        image_sizes.append(size)
        for _ in range(draw.draw(st.integers(0, 3))):
            saliency.append(rng.random(size, np.float32))
            shapes.append(saliency[-1] > 0.5)
        first.append(len(shapes))
    most = 255 if dtype == torch.uint8 else 65_535
    clusters, is_kept = rng.integers(0, most, len(shapes)), rng.random(len(shapes)) < 0.7
    boxes = [CPU.find_masks(mask[None], "0.5", 0).boxes[0] if mask.any() else np.zeros(4, int) for mask in shapes]
    arguments = (
        torch.from_numpy(np.array(boxes, np.int32).reshape(-1, 4)),
        torch.from_numpy(clusters.astype(np.int32)),
        torch.from_numpy(is_kept),
        torch.tensor(first),
        image_sizes,
        dtype,
    )
    masks = ragged_batches.pack_maps(shapes, torch.uint8, HOST)
    nothing, half = torch.zeros(len(shapes)), torch.full((len(shapes),), 0.5)
    found = gpu_images.assemble_masks(kernels, masks, nothing, *arguments).split()
    maps = ragged_batches.pack_maps(saliency, torch.float32, HOST)
    by_saliency = gpu_images.assemble_masks(kernels, maps, half, *arguments).split()
    assert len(found) == len(image_sizes)
    for i, size in enumerate(image_sizes):
        rows = [n for n in range(first[i], first[i + 1]) if is_kept[n]]
        labelled = interface.LabelledMasks([shapes[n] for n in rows], [int(clusters[n]) for n in rows], size)
        (expected,) = CPU.assemble_masks([labelled])
        assert found[i].dtype == dtype and (found[i].numpy() == expected).all()
        assert (by_saliency[i].numpy() == expected).all()


# -- what the CPU version of a GPU catches --------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_refused(kernels: CpuKernels) -> None:
    maps = ragged_batches.pack_maps([np.zeros((3, 4), np.float32)], torch.float32, HOST)
    counts = torch.zeros((1, 256), dtype=torch.int32)
    right = [maps.values, maps.offsets, maps.sizes, counts]
    kernels.launch("mask_boxes", "histograms", (1, 1, 1), 32, right)
    for wrong, reason in [
        (right[:3], "takes 4 arguments, got 3"),
        ([*right[:3], counts.long()], "counts points at int, got torch.int64"),
        ([maps.values, maps.sizes, maps.offsets, counts], "offsets points at long long"),
        ([*right[:3], 5], "counts points at int, got int"),
        ([*right[:3], torch.zeros((256, 2), dtype=torch.int32).T], "counts is not contiguous"),
    ]:
        with pytest.raises(TypeError, match=reason):
            kernels.launch("mask_boxes", "histograms", (1, 1, 1), 32, wrong)
    with pytest.raises(TypeError, match="n_maps is a number"):
        kernels.launch("mask_boxes", "otsu_thresholds", (1, 1, 1), 32, [counts, torch.zeros(1), counts])


def test_kernels_with_barriers_are_found() -> None:
    source = kernel_loader.read_kernel_source("mask_boxes")
    assert functions_with_barriers(source) == {"join_measures", "histograms", "threshold_maps", "measure_masks"}
    assert not functions_with_barriers(kernel_loader.read_kernel_source("crop_resize"))


PLANTED = """
extern "C" __global__ void planted(int* place) {
    __shared__ int sum;
    if (threadIdx.x == 0) sum = 0;
    %s
    atomicAdd(&sum, 1);
    __syncthreads();
    place[0] = sum;
}
"""


@pytest.mark.parametrize(("line", "expected"), [("__syncthreads();", 0), ("if (threadIdx.x < 5) __syncthreads();", 3)])
def test_barriers_that_threads_never_reach_are_caught(tmp_path: Path, line: str, expected: int) -> None:
    library = build(PLANTED % line, ["planted"], tmp_path / "planted")
    program = f"""
import ctypes
place = ctypes.c_int(); shape = (ctypes.c_uint * 4)(1, 1, 1, 8)
pointer = ctypes.c_void_p(ctypes.addressof(place))
arguments = (ctypes.c_void_p * 1)(ctypes.addressof(pointer))
ctypes.CDLL({str(library)!r}).planted_on_cpu(shape, arguments, 1, 0)
assert place.value == 8
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == expected, done.stderr
    assert not expected or "a barrier that some threads never reach" in done.stderr


# One process imports everything and is forked for each of the changes that it is given, told by its standard error.
UNDER_SANITIZER = """
import json, os, sys, traceback
import numpy as np
import torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import cuda_on_cpu.cpu_kernels
from cuda_on_cpu.cpu_kernels import CpuKernels
from fastcomus.backends import gpu_images, gpu_objects, kernel_loader, ragged_batches

whole = kernel_loader.read_kernel_source
host = torch.device("cpu")

def work(change):
    kernel_loader.read_kernel_source = lambda file: whole(file).replace(*change) if change else whole(file)
    cuda_on_cpu.cpu_kernels.read_kernel_source = kernel_loader.read_kernel_source
    kernels = CpuKernels("-fsanitize=address", "-g", "-O0")
    rng = np.random.default_rng(0)
    sizes = [(40, 33), (7, 90)]
    images = ragged_batches.pack_images([rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes], host)
    boxes = torch.tensor([[0, 0, 33, 40], [32, 39, 33, 40], [0, 0, 90, 7]], dtype=torch.int32)
    gpu_images.crop_resize(kernels, images, boxes, torch.tensor([0, 0, 1], dtype=torch.int32), 20, torch.float16)
    maps = ragged_batches.pack_maps([rng.random(size, np.float32) for size in sizes], torch.float32, host)
    found = gpu_images.threshold_masks(kernels, maps, "otsu", largest_part=True)
    clusters, kept = torch.tensor([3, 4], dtype=torch.int32), torch.ones(2, dtype=torch.bool)
    gpu_images.assemble_masks(kernels, found.masks, torch.zeros(2), found.boxes, clusters, kept, 
                              torch.tensor([0, 1, 2]), maps.host_sizes, torch.uint8)
    enlarged = gpu_objects.enlarge_maps(kernels, torch.rand(2, 9, 7), sizes)
    changes = gpu_objects.count_changes(kernels, found.masks)
    gpu_objects.write_changes(kernels, found.masks, changes, int(changes.mask_ends[-1]))

for place, change in enumerate(json.loads(sys.argv[3])):
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(f"{sys.argv[2]}/{place}.txt", os.O_WRONLY | os.O_CREAT), 2)
            work(change)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


OUT_OF_BOUNDS = [
    (),
    ("store(place + 2 * plane,", "store(place + 3 * plane,"),  # a plane too far, of the last crop
    ("to[p] = fminf(", "to[p + 9] = fminf("),
    ("if (now != last) *place++ =", "*place++ ="),
    ("masks[pixels.offset + p] = inside;", "masks[pixels.offset + p + 9] = inside;"),  # in a kernel with fibers
]


@pytest.mark.slow
def test_writes_out_of_bounds_are_caught(tmp_path: Path) -> None:
    # libstdc++ comes along, for the sanitizer looks for C++'s throw before Python has loaded it.
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    if not all(Path(library).exists() for library in libraries):
        pytest.skip("g++ came without AddressSanitizer")
    sanitized = {"LD_PRELOAD": ":".join(libraries), "ASAN_OPTIONS": "detect_leaks=0:symbolize=0"}
    environment = {**os.environ, **sanitized, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", UNDER_SANITIZER, str(TESTS), str(tmp_path), json.dumps(OUT_OF_BOUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    codes = [int(code) for code in done.stdout.split()]
    assert len(codes) == len(OUT_OF_BOUNDS) and codes[0] == 0, (
        done.stdout,
        done.stderr,
        (tmp_path / "0.txt").read_text(),
    )
    for place, code in enumerate(codes[1:], 1):
        told = (tmp_path / f"{place}.txt").read_text()
        assert code not in (0, 99) and "AddressSanitizer: heap-buffer-overflow" in told, (OUT_OF_BOUNDS[place], told)
