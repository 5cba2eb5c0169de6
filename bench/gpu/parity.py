"""Every operation on the device against the CPU's: `agrees` says whether what differs is within what is expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from bench.gpu.place import Place, measure_difference
from bench.gpu.steps import Part
from fastcomus.backends.cpu import compute_otsu_threshold, resize_maps
from fastcomus.backends.interface import FoundObjects, Image, LabelledMasks
from fastcomus.backends.jpeg_batches import JpegBatches
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import SALIENCY_PRIORS, ClusterConfig, EmbedConfig
from fastcomus.networks.encoders import load_encoder
from fastcomus.objects.saliency.batched_prior import BatchedPriors
from fastcomus.objects.saliency.methods import load_proposer
from fastcomus.segmentation.class_scores import Prediction
from fastcomus.segmentation.segmenter import build_segmenter

# Convolutions round to TF32 on a GPU, by cuDNN's default: 10 bits of a float32's 23.
_OF_NETWORKS = 5e-3


def list_parts(place: Place) -> Iterator[Part]:
    for name, backend in place.backends.items():
        yield f"objects, {name}", lambda backend=backend: compare_objects(place, backend)
        yield f"class maps and confusion, {name}", lambda backend=backend: compare_maps(place, backend)
        yield f"neighbours, {name}", lambda backend=backend: compare_neighbors(place, backend)
        yield f"k-means, {name}", lambda backend=backend: compare_kmeans(place, backend)
        yield f"eigenvectors, {name}", lambda backend=backend: compare_eigenvectors(place, backend)
        yield f"clusters, {name}", lambda backend=backend: compare_clusters(place, backend)
    for name in place.choose(SALIENCY_PRIORS, SALIENCY_PRIORS[:1]):
        yield f"{name} in batches", lambda name=name: compare_prior(place, name)
    yield "saliency network", lambda: compare_saliency_network(place)
    yield "encoder", lambda: compare_encoder(place)
    yield "segmenter", lambda: compare_segmenter(place)
    yield "JPEG files", lambda: compare_decoding(place)


def compare_objects(place: Place, backend: Any) -> dict[str, Any]:
    """Masks, boxes, run lengths and crops of maps at image size, of coarse maps, and of odd shapes."""
    pictures = place.read_photographs(place.choose(128, 2))
    maps = [draw_map(picture.shape[:2], number) for number, picture in enumerate(pictures)]
    coarse = [draw_map((64, 64), number) for number in range(len(pictures))]
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 700), (700, 1), (2, 3), (257, 255), *place.choose([(3000, 5000)], [])]
    odd = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    odd_maps = [rng.random((2, *shape), dtype=np.float32) for shape in shapes]
    found = {"images": 0, "boxes": 0, "areas": 0, "run lengths": 0, "score": 0.0, "crop, grey levels": 0}
    for images, given, least in ((pictures, maps, 400), (pictures, coarse, 400), (odd, odd_maps, 1)):
        expected = place.cpu.find_objects(images, given, "otsu", least, place.choose(224, 16))
        on_device = [torch.from_numpy(image).to(place.device) for image in images]
        for some in (images, on_device):
            add_differences(found, find_in_batches(backend, some, given, least, place.choose(224, 16)), expected)
    wrong = found["boxes"] + found["areas"]
    return {**found, "agrees": wrong <= 0.01 * found["images"] and found["crop, grey levels"] <= 2}


def find_in_batches(
    backend: Any, images: Sequence[Image], maps: Sequence[np.ndarray], least: int, size: int
) -> list[FoundObjects]:
    found: list[FoundObjects] = []
    for start in range(0, len(images), 32):
        part = slice(start, start + 32)
        found += backend.find_objects(images[part], maps[part], "otsu", least, size)
    return found


def add_differences(into: dict[str, Any], found: list[FoundObjects], expected: list[FoundObjects]) -> None:
    """How many images have other boxes, areas or run lengths, and how far scores and crops are at most."""
    for one, other in zip(found, expected, strict=True):
        into["images"] += 1
        into["boxes"] += not np.array_equal(one.boxes, other.boxes)
        into["areas"] += not np.array_equal(one.areas, other.areas)
        into["run lengths"] += one.run_lengths != other.run_lengths
        if len(one.scores) == len(other.scores) and len(one.scores):
            into["score"] = max(into["score"], float(np.abs(one.scores - other.scores).max()))
        if one.crops.shape == other.crops.shape and len(one.crops) and np.array_equal(one.boxes, other.boxes):
            far = int((one.crops.cpu().int() - other.crops.int()).abs().max())
            into["crop, grey levels"] = max(into["crop, grey levels"], far)


def draw_map(shape: tuple[int, int], seed: int) -> np.ndarray:
    """A blurred disc with noise, (1, H, W) float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(-1, 1, side)[tuple(view)] for side, view in zip(shape, ([..., None], [None, ...]), strict=True))
    away = np.hypot(y - rng.uniform(-0.3, 0.3), x - rng.uniform(-0.3, 0.3))
    return np.clip(1 - away + rng.normal(0, 0.02, shape), 0, 1).astype(np.float32)[None]


def compare_maps(place: Place, backend: Any) -> dict[str, Any]:
    rng, images = np.random.default_rng(0), []
    for count in (0, 1, 3, 7):
        shape = tuple(int(one) for one in rng.integers(1, 400, 2))
        masks = [draw_map(shape, count + number)[0] > 0.5 for number in range(count)]
        images.append(LabelledMasks(masks, rng.integers(0, 65_000, count).tolist(), shape))
    pairs = zip(backend.assemble_masks(images), place.cpu.assemble_masks(images), strict=True)
    maps = sum(not np.array_equal(one, other) for one, other in pairs)
    predicted, truth = rng.integers(0, 300, (375, 500), np.uint16), rng.integers(0, 256, (375, 500), np.uint8)
    counts = backend.count_confusion(predicted, truth, 300), place.cpu.count_confusion(predicted, truth, 300)
    is_same = np.array_equal(*counts)
    return {"class maps that differ": maps, "confusion is the same": is_same, "agrees": is_same and not maps}


def compare_neighbors(place: Place, backend: Any) -> dict[str, Any]:
    rows, _ = place.plant_rows(*place.choose((20_000, 20), (600, 6, 32)))
    found, expected = (one.find_neighbors(rows, 30, 0.95, 0) for one in (backend, place.cpu))
    same = float(np.mean([np.isin(a, b).mean() for a, b in zip(found.indices, expected.indices, strict=True)]))
    near = [one.find_nearest(rows[:500] + 0.01, rows, 5)[1] for one in (backend, place.cpu)]
    far = measure_difference(*near)
    return {"shared": same, "told": found.recall, "distances": far, "agrees": same > 0.99 and far < 1e-3}


def compare_kmeans(place: Place, backend: Any) -> dict[str, Any]:
    rows, _ = place.plant_rows(place.choose(20_000, 500), 20, 64, 0.8)
    start = rows[:20].copy()
    found, expected = (one.run_kmeans(rows, 20, 1, 0, start) for one in (backend, place.cpu))
    again = backend.run_kmeans(rows, 20, 1, 0, start)[0]
    inertias = [float(((rows - centres[labels]) ** 2).sum()) for labels, centres in (found, expected)]
    return {
        "ari": adjusted_rand_score(found[0], expected[0]),
        "inertia over the CPU's": inertias[0] / inertias[1],
        "same labels again": bool((again == found[0]).all()),
        "agrees": inertias[0] < 1.01 * inertias[1],
    }


def compare_eigenvectors(place: Place, backend: Any) -> dict[str, Any]:
    """The subspaces that both find, by the cosines between them, and the eigenvalues."""
    from fastcomus.clusters.graph import build_knn_graph, drop_loops

    rows, _ = place.plant_rows(*place.choose((20_000, 20), (5_100, 20, 16, 1.0)))
    affinity = drop_loops(build_knn_graph(rows, place.choose(30, 10), "euclidean", 0.95, 0, place.cpu).affinity)
    (values, vectors), (wanted, expected) = (one.find_eigenvectors(affinity, 16, 0) for one in (backend, place.cpu))
    again = backend.find_eigenvectors(affinity, 16, 0)[1]
    cosines = np.linalg.svd(np.float64(vectors).T @ np.float64(expected), compute_uv=False)
    far = float(np.abs(values - wanted).max())
    return {
        "eigenvalues": far,
        "least cosine": float(cosines.min()),
        "same bits again": bool((again == vectors).all()),
        "agrees": far < 1e-3 and float(cosines.min()) > 0.99,
    }


def compare_clusters(place: Place, backend: Any) -> dict[str, Any]:
    rows, classes = place.plant_rows(*place.choose((20_000, 20), (2_100, 8, 32)))
    config = ClusterConfig(k=place.choose(20, 8))
    ours, theirs = (cluster_embeddings(rows, config, 0, one).clusters for one in (backend, place.cpu))
    both = adjusted_rand_score(ours.labels, theirs.labels)
    truth = [adjusted_rand_score(classes, one.labels) for one in (ours, theirs)]
    core = float((ours.is_core == theirs.is_core).mean())
    agrees = abs(truth[0] - truth[1]) < 0.02 and both > 0.95
    return {"ari": both, "ari to what was planted": truth, "core shared": core, "agrees": agrees}


def compare_prior(place: Place, name: str) -> dict[str, Any]:
    """A prior in batches on the device against the same on the CPU, and against the one on single images."""
    pictures = place.read_photographs(place.choose(32, 1))
    there, here = (BatchedPriors(device, (name,)) for device in (place.device, torch.device("cpu")))
    single = load_proposer(EmbedConfig(saliency=name), torch.device("cpu"))
    assert callable(single)
    prepared = torch.stack([here.prepare(picture) for picture in pictures])
    ours, theirs = torch.cat(there.propose(prepared)).cpu(), torch.cat(here.propose(prepared))
    shared = []
    for one, picture in zip(ours, pictures, strict=True):
        maps = resize_maps(one[None].numpy(), picture.shape[:2])[0], single("", picture)[0]
        found, expected = (each > compute_otsu_threshold(each) for each in maps)
        shared.append((found & expected).sum() / max(1, (found | expected).sum()))
    far = measure_difference(ours, theirs)
    return {"difference": far, "IoU with the prior on single images": float(np.mean(shared)), "agrees": far < 0.02}


def compare_saliency_network(place: Place) -> dict[str, Any]:
    config = EmbedConfig(saliency=place.make_saliency_network(), prior_weight=0.0, saliency_precision="float32")
    proposers = [load_proposer(config, device) for device in (place.device, torch.device("cpu"))]
    prepared = torch.stack([proposers[1].prepare(one) for one in place.read_photographs(place.choose(8, 2))])
    far = measure_difference(*(torch.cat(proposer.propose(prepared)) for proposer in proposers))
    return {"difference": far, "agrees": far < 0.05}  # a map at random is stretched


def compare_encoder(place: Place) -> dict[str, Any]:
    """Embeddings in float32 and bf16 against the CPU's, by the least cosine."""
    chosen = place.choose_encoder()
    side = chosen["crop_size"]
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, side, side), dtype=np.uint8))
    given = chosen["encoder"], chosen["encoder_weights"], side
    expected = load_encoder(*given, "float32", torch.device("cpu"))(crops)
    found = {}
    for precision in ("float32", "bf16"):
        rows = load_encoder(*given, precision, place.device)(crops).cpu()
        found[precision] = float(torch.cosine_similarity(rows, expected).min())
    return {"least cosine": found, "agrees": found["float32"] > 0.9999 and found["bf16"] > 0.99}


def compare_segmenter(place: Place) -> dict[str, Any]:
    """Logits and labels, in float32, of a network at random."""
    chosen = place.choose_backbone()
    torch.manual_seed(0)
    network = build_segmenter(chosen["backbone"], chosen["backbone_weights"], 20, 8).eval()
    side = place.choose(257, 65)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, side, side), dtype=np.uint8))
    with torch.inference_mode():
        expected = network(images)
        logits = network.to(place.device)(images.to(place.device))
    labels = [Prediction("", (one[0],), 200, 300, 8).compute_labels() for one in (logits, logits.cpu())]
    far, same = measure_difference(logits, expected), float((labels[0] == labels[1]).mean())
    return {"logits": far, "labels of the same logits": same, "agrees": far < _OF_NETWORKS and same > 0.999}


def compare_decoding(place: Place) -> dict[str, Any]:
    """Pixels of the device's decoder against the CPU's, in grey levels."""
    folder, decoder = place.link_photographs(place.choose(128, 4)), JpegBatches(place.device)
    paths = sorted(folder.iterdir())
    means, most = [], 0
    for start in range(0, len(paths), 32):
        files = [decoder.read(path, 10**8) for path in paths[start : start + 32]]
        for path, pixels in zip(paths[start : start + 32], decoder.decode(files), strict=True):
            assert isinstance(pixels, torch.Tensor)
            far = np.abs(pixels.cpu().numpy().astype(int) - place.cpu.decode(str(path), 10**8))
            means.append(float(far.mean()))
            most = max(most, int(far.max()))
    numbers = {"mean": float(np.mean(means)), "worst image": max(means), "largest": most}
    return {**numbers, "decoded": decoder.take_counts(), "agrees": max(means) < 2}
