"""From JPEG files to embeddings: every part alone on what lies on the device, and the whole from files."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from bench.gpu.place import Place
from bench.gpu.steps import Part
from fastcomus.backends.jpeg_batches import JpegBatches
from fastcomus.config import SALIENCY_PRIORS, EmbedConfig
from fastcomus.networks.encoders import load_encoder
from fastcomus.objects.saliency.batched_prior import BatchedPriors
from fastcomus.objects.saliency.methods import load_proposer


def list_parts(place: Place) -> Iterator[Part]:
    network = {"saliency": place.make_saliency_network()}
    yield "JPEG files, device", lambda: measure_decoding(place)
    yield "JPEG files, CPU", lambda: measure_decoding_on_cpu(place)
    for name in place.choose(SALIENCY_PRIORS, SALIENCY_PRIORS[:1]):
        yield f"{name}, on tensors", lambda name=name: measure_prior(place, name)
    yield "saliency network, on tensors", lambda: measure_saliency_network(place)
    for precision in ("bf16", "float32"):
        yield f"encoder, on tensors, {precision}", lambda precision=precision: measure_encoder(place, precision)
    alone = {**network, "prior_weight": 0.0}
    yield "embed, network", lambda: measure_embed(place, "network", **alone, precision="bf16")
    yield "embed, network with its priors", lambda: measure_embed(place, "joined", **network, precision="bf16")
    yield (
        "embed, background prior",
        lambda: measure_embed(place, "prior", saliency="background-prior", precision="bf16"),
    )
    if not place.is_small:
        yield "embed, network, float32", lambda: measure_embed(place, "float32", **alone, precision="float32")
    if place.device.type == "cuda":
        yield (
            "embed, network, compiled",
            lambda: measure_embed(place, "compiled", **alone, precision="bf16", compile=True),
        )
        yield "embed, little memory", lambda: measure_in_little_memory(place, **alone, precision="bf16")


def measure_decoding(place: Place) -> dict[str, Any]:
    """Images a second by the device's decoder, whose files lie in memory, by how many it takes at once."""
    paths = sorted(place.link_photographs(place.choose(512, 4)).iterdir())
    decoder, found = JpegBatches(place.device), {}
    files = [decoder.read(path, 10**8) for path in paths]
    for at_once in place.choose((8, 32, 128), (2,)):

        def work(at_once: int = at_once) -> None:
            for start in range(0, len(files), at_once):
                decoder.decode(files[start : start + at_once])

        found[f"{at_once} at once"] = place.measure(work, len(files))
    return {**found, "decoded": decoder.take_counts()}


def measure_decoding_on_cpu(place: Place) -> dict[str, Any]:
    paths = sorted(place.link_photographs(place.choose(512, 4)).iterdir())
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return place.measure(lambda: list(pool.map(lambda path: place.cpu.decode(str(path), 10**8), paths)), len(paths))


def measure_prior(place: Place, name: str) -> dict[str, Any]:
    proposer = BatchedPriors(place.device, (name,))
    prepared = torch.stack([proposer.prepare(one) for one in place.read_photographs(place.choose(32, 1))])
    prepared = prepared.to(place.device)
    return place.measure(lambda: proposer.propose(prepared), len(prepared), place.choose(0, -1))


def measure_saliency_network(place: Place) -> dict[str, Any]:
    config = EmbedConfig(saliency=place.make_saliency_network(), prior_weight=0.0)
    proposer = load_proposer(config, place.device)
    assert not callable(proposer)
    prepared = torch.stack([proposer.prepare(one) for one in place.read_photographs(place.choose(32, 2))])
    prepared = prepared.to(place.device)
    return place.measure(lambda: proposer.propose(prepared), len(prepared))


def measure_encoder(place: Place, precision: str) -> dict[str, Any]:
    chosen = place.choose_encoder()
    side, batch = chosen["crop_size"], place.choose(256, 4)
    encoder = load_encoder(chosen["encoder"], chosen["encoder_weights"], side, precision, place.device)
    crops = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=place.device)
    return place.measure(lambda: encoder(crops), batch)


def measure_embed(place: Place, name: str, **settings: Any) -> dict[str, Any]:
    """`embed` of many files, after a few to warm up; loading the networks counts, and stands beside."""
    count = place.choose(2_000, 2)
    given = {**place.choose_encoder(), **settings}
    few, many = place.link_photographs(place.choose(64, 1)), place.link_photographs(count)
    warm = place.measure(lambda: place.make_run(f"warm-{name}").embed(few, **given), repeats=-1)
    run, decoder = place.make_run(name), {}

    def embed() -> None:
        run.embed(many, **given)
        decoder["objects"] = run.objects().num_rows

    return {**place.measure(embed, count, repeats=-1), **decoder, "first 64 images, s": warm["median_s"]}


def measure_in_little_memory(place: Place, **settings: Any) -> dict[str, Any]:
    """The same with an eightieth of the card: batches are to become smaller, and nothing is to fail."""
    torch.cuda.set_per_process_memory_fraction(1 / 80, place.device)
    try:
        return measure_embed(place, "little", **settings, embed_batch=256)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, place.device)
