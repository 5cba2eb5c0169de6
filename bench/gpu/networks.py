"""Training and labelling beside the bare network on tensors that lie on the device, and how busy the device is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812
from torch.profiler import ProfilerActivity, profile

from bench import harness
from bench.gpu.place import Place
from bench.gpu.steps import Part
from fastcomus.config import Config, TrainConfig
from fastcomus.images.folder import find_images
from fastcomus.networks.determinism import use_determinism
from fastcomus.networks.fixed_padding import align_side
from fastcomus.networks.precision import choose_precision, use_precision
from fastcomus.segmentation.class_scores import Prediction
from fastcomus.segmentation.prediction import label_images
from fastcomus.segmentation.segmenter import Segmenter, build_segmenter, enlarge_logits
from fastcomus.segmentation.training import SelfTraining
from fastcomus.settings import get_preset_config

LABELS = 20  # clusters
WORKERS = 16


def list_training_parts(place: Place) -> Iterator[Part]:
    for name, settings in choose_recipes(place).items():
        yield f"train, {name}", lambda settings=settings: measure_training(place, settings)
    yield "train, the same bytes", lambda: compare_trainings(place)


def list_prediction_parts(place: Place) -> Iterator[Part]:
    yield "predict", lambda: measure_prediction(place)


def list_profiled_parts(place: Place) -> Iterator[Part]:
    network = {"saliency": place.make_saliency_network(), "precision": "bf16"}
    given = {**place.choose_encoder(), **network, "prior_weight": 0.0}
    if not place.is_small:
        yield "embed, network", lambda: profile_embed(place, given)
        yield "embed, background prior", lambda: profile_embed(place, {**given, "saliency": "background-prior"})
        yield "train", lambda: profile_training(place)
    yield "predict", lambda: profile_prediction(place)


def choose_recipes(place: Place) -> dict[str, dict[str, Any]]:
    """Of the paper, and of the preset offline: size of crops, batch and output stride."""
    own = place.choose_backbone()
    if place.is_small:
        return {"small": {**own, "train_size": 65, "batch_size": 4, "output_stride": 16}}
    return {
        "512 px, stride 8, batch 56": {**own, "train_size": 512, "batch_size": 56, "output_stride": 8},
        "256 px, stride 8, batch 56": {**own, "train_size": 256, "batch_size": 56, "output_stride": 8},
    }


# -- training --------------------------------------------------------------------------------------------------------


def measure_training(place: Place, settings: dict[str, Any]) -> dict[str, Any]:
    """A step on tensors of the host, an epoch from files, and a bare loop on tensors of the device."""
    config = make_recipe(settings)
    found = {name: measure_steps(place, config, name) for name in ("step", "deterministic step", "bare loop")}
    found["from files"] = measure_epoch(place, config)
    bare = found["bare loop"]["per_s"]
    return {**found, **{f"{name} over the bare loop": found[name]["per_s"] / bare for name in found}}


def measure_steps(place: Place, config: TrainConfig, name: str) -> dict[str, Any]:
    batch, training = config.batch_size, SelfTraining(LABELS, config, 1, 0, place.torch_backend)
    side = align_side(config.train_size, config.output_stride)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    labels = torch.randint(0, LABELS + 1, (batch, side, side))
    if name != "bare loop":
        with use_determinism(place.device, name == "deterministic step"):
            return place.measure(lambda: training._step([(images, labels)], 0, 0), batch)
    return place.measure(make_bare_step(place, config, images, labels), batch)


def compare_trainings(place: Place) -> dict[str, Any]:
    """Whether some steps end with the same bytes twice, usually and with --deterministic."""
    config, found = make_recipe(next(iter(choose_recipes(place).values()))), {}
    config = replace(config, batch_size=4, train_size=place.choose(257, 65))
    side = align_side(config.train_size, config.output_stride)
    for name, is_wanted in (("usually", False), ("deterministic", True)):
        states = []
        for _ in range(2):
            training = SelfTraining(LABELS, config, 1, 0, place.torch_backend)
            torch.manual_seed(0)
            images = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
            batch = images, torch.randint(0, LABELS + 1, (4, side, side))
            with use_determinism(place.device, is_wanted):
                for step in range(place.choose(3, 1)):
                    training._step([batch], 0, step)
            states.append([one.cpu() for one in training.segmenter.state_dict().values()])
        found[name] = all(torch.equal(one, other) for one, other in zip(*states, strict=True))
    return {**found, "agrees": found["deterministic"]}


def make_recipe(settings: dict[str, Any]) -> TrainConfig:
    return replace(get_preset_config("voc").train, **settings)


def make_bare_step(place: Place, config: TrainConfig, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """bf16 where the device has it, channels last, everything on the device, cross-entropy and Adam."""
    precision = choose_precision(config.precision, place.device)
    network = build_segmenter(config.backbone, config.backbone_weights, LABELS, config.output_stride)
    network = network.to(place.device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    pixels, classes = images.to(place.device), labels.to(place.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with use_precision(place.device, precision):
            logits = enlarge_logits(network(pixels), pixels.shape)
        F.cross_entropy(logits, classes).backward()
        optimizer.step()

    return step


def measure_epoch(place: Place, config: TrainConfig) -> dict[str, Any]:
    """Steps from files, after the first two."""
    steps, batch = place.choose(8, 1), config.batch_size
    with closing(iterate_training(place, config, (steps + 2) * batch)) as trained:
        for _ in itertools.islice(trained, 2):
            pass
        return place.measure(lambda: sum(itertools.islice(trained, steps)), steps * batch, repeats=-1)


def iterate_training(place: Place, config: TrainConfig, count: int) -> Iterator[int]:
    folder = place.link_photographs(place.choose(512, 4))
    files = sorted(folder.iterdir())

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = place.cpu.decode(str(files[index % len(files)]), 10**8)
        return pixels, (pixels.mean(axis=2) > 128).astype(np.uint8)

    training = SelfTraining(LABELS, replace(config, cache_gb=2.0), 1, 0, place.torch_backend)
    return training.train(read, count, place.choose(WORKERS, 1))


# -- labelling -------------------------------------------------------------------------------------------------------


def measure_prediction(place: Place) -> dict[str, Any]:
    """`predict` from files to labels on the host, beside the network alone on tensors of one size."""
    config, segmenter = make_prediction_settings(place)
    count = place.choose(512, 4)
    batch, (height, width) = place.choose(64, 2), place.choose((513, 681), (65, 81))
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, device=place.device)
    precision = choose_precision(config.train.precision, place.device)
    segmenter = segmenter.to(place.device)

    def run_bare() -> None:
        with torch.inference_mode(), use_precision(place.device, precision):
            segmenter(images)

    bare = place.measure(run_bare, batch)
    whole = place.measure(lambda: label_photographs(place, config, segmenter, count), count)
    return {"network": bare, "predict": whole, "predict over the network": whole["per_s"] / bare["per_s"]}


def make_prediction_settings(place: Place) -> tuple[Config, Segmenter]:
    config, own = get_preset_config("voc"), place.choose_backbone()
    if place.is_small:
        config = replace(config, predict=replace(config.predict, predict_size=65))
    torch.manual_seed(0)
    return config, build_segmenter(own["backbone"], own["backbone_weights"], LABELS, place.choose(8, 16)).eval()


def label_photographs(place: Place, config: Config, segmenter: Segmenter, count: int) -> int:
    """Pixels that got a label."""
    found = find_images(place.link_photographs(count))

    def count_pixels(prediction: Prediction) -> int:
        return prediction.compute_labels().size

    given = (segmenter, found.root, found.names, (), count_pixels, config, place.torch_backend)
    return sum(label_images(*given, place.choose(WORKERS, 1), "predict"))


# -- how busy the device is ------------------------------------------------------------------------------------------


def profile_embed(place: Place, given: dict[str, Any]) -> dict[str, Any]:
    images = place.link_photographs(512)
    place.make_run("profile-warm").embed(place.link_photographs(64), **given)
    run = place.make_run("profile")
    return profile_work(place, lambda: run.embed(images, **given))


def profile_training(place: Place) -> dict[str, Any]:
    config = make_recipe(next(iter(choose_recipes(place).values())))
    steps = place.choose(4, 2)
    with closing(iterate_training(place, config, (steps + 1) * config.batch_size)) as trained:
        next(trained)
        return profile_work(place, lambda: list(itertools.islice(trained, steps)))


def profile_prediction(place: Place) -> dict[str, Any]:
    config, segmenter = make_prediction_settings(place)
    label_photographs(place, config, segmenter, place.choose(64, 1))
    return profile_work(place, lambda: label_photographs(place, config, segmenter, place.choose(512, 1)))


def profile_work(place: Place, work: Callable[[], object]) -> dict[str, Any]:
    """The share of the time in which the device had work; on the CPU, whose work has no such records, 0."""
    is_gpu = place.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if is_gpu else ProfilerActivity.CPU]) as profiler:
        times = harness.time_once(work, device=str(place.device))
    trace = place.scratch / "trace.json"
    profiler.export_chrome_trace(str(trace))
    found = summarise_trace(trace, times.median_s)
    trace.unlink()
    return found


def summarise_trace(trace: Path, wall_s: float) -> dict[str, Any]:
    """Seconds and share in which kernels and copies ran, overlaps once; what took longest."""
    spans, kernels, copies = [], {}, {}
    for event in json.loads(trace.read_text())["traceEvents"]:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            spans.append((event["ts"], event["ts"] + event["dur"]))
            kind = kernels if event["cat"] == "kernel" else copies
            taken, number = kind.get(event["name"], (0.0, 0))
            kind[event["name"]] = taken + event["dur"] / 1e3, number + 1
    busy, last = 0.0, float("-inf")
    for start, end in sorted(spans):
        busy += max(0.0, end - max(start, last)) / 1e6
        last = max(last, end)
    longest = sorted(kernels.items(), key=lambda one: -one[1][0])[:12]
    return {
        "wall_s": round(wall_s, 4),
        "busy_s": round(busy, 4),
        "busy_share": round(busy / wall_s, 3),
        "launches": sum(number for _, number in kernels.values()),
        "kernels, ms and times": {name[:90]: [round(ms, 2), number] for name, (ms, number) in longest},
        "copies, ms and times": {name[:60]: [round(ms, 2), number] for name, (ms, number) in copies.items()},
    }
