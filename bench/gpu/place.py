"""What the steps share: device, inputs, networks at random, clocks, and how soon the device could be done."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.backends.cpu import CpuBackend
from fastcomus.backends.torch_backend import TorchBackend
from fastcomus.errors import InputError
from fastcomus.images.folder import find_images
from fastcomus.run.run import Run

SIZE = 500, 375  # of an image of VOC
CEILINGS = "ceilings"  # the part of the step `machine` that has them


@dataclass(frozen=True)
class Place:
    """`ceilings`: bytes/s and operations/s that the device reached in this run, by name; empty where unknown."""

    device: torch.device
    is_small: bool
    repeats: int
    images: Path | None
    scratch: Path
    records: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def cpu(self) -> CpuBackend:
        return CpuBackend()

    @cached_property
    def torch_backend(self) -> TorchBackend:
        """The backend of torch alone, on the device."""
        return TorchBackend(self.device)

    @cached_property
    def backends(self) -> dict[str, Any]:
        """By name: torch alone, and on a GPU what fastcomus chooses there."""
        chosen = {"as chosen": select(str(self.device))} if self.device.type == "cuda" else {}
        return {"torch": self.torch_backend, **chosen}

    @property
    def ceilings(self) -> dict[str, float]:
        return self.records.get("machine", {}).get("parts", {}).get(CEILINGS, {})

    def choose(self, full: Any, small: Any) -> Any:
        return small if self.is_small else full

    # -- clocks and bounds ----------------------------------------------------------------------------------------

    def measure(
        self, work: Callable[[], Any], count: int = 0, repeats: int = 0, bound_s: float = 0.0
    ) -> dict[str, Any]:
        """Seconds of `work` after one turn to warm up, or once where `repeats` is -1; things a second, where counted.

        `bound_s`: how soon the device could be done, by the ceilings.
        """
        device = str(self.device)
        self._forget_peak()
        if repeats < 0:
            times = harness.time_once(work, device=device)
        else:
            times = harness.time_sides({"": work}, repeats or self.repeats, device)[""]
        row: dict[str, Any] = {f"{name}_s": round(value, 5) for name, value in harness.summarise(times.wall_s).items()}
        if count:
            row["per_s"] = round(count / times.median_s, 1)
        if bound_s:
            row |= {"bound_s": round(bound_s, 5), "share_of_bound": round(bound_s / times.median_s, 3)}
        return row | self.read_peak()

    def _forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def read_peak(self) -> dict[str, int]:
        """The most memory that tensors took on the device since the last `measure` began."""
        if self.device.type != "cuda":
            return {}
        return {"device_mib": torch.cuda.max_memory_allocated(self.device) // 2**20}

    def bound(self, **amounts: float) -> float:
        """Seconds that the slowest of these takes at its ceiling; 0 where none is known.

        `amounts`: bytes `sent`, `fetched` and `moved` in the device's memory; operations in `bfloat16`, `float32`.
        """
        ceilings = self.ceilings
        return max((amount / ceilings[name] for name, amount in amounts.items() if ceilings.get(name)), default=0)

    # -- inputs ---------------------------------------------------------------------------------------------------

    def plant_rows(self, count: int, k: int, dimension: int = 384, separation: float = 0.41, seed: int = 0) -> Any:
        """Rows (count, dimension) float32 of unit length on the host, that behave like DINO's, and their classes.

        Classes are of unequal sizes, overlap and have axes of their own. Drawn on the device: a million take long.
        """
        generator = torch.Generator(self.device).manual_seed(seed)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, device=self.device)

        def fall(length: int, power: float) -> torch.Tensor:
            return torch.arange(1, length + 1, device=self.device) ** -power

        weights = fall(k, 0.7) * torch.exp(0.3 * draw(k))
        classes = torch.multinomial(weights, count, True, generator=generator)
        spectrum, noise = (one / one.norm() for one in (fall(dimension, 0.5), fall(dimension, 0.3)))
        means, common = separation * draw(k, dimension) * spectrum, draw(dimension) * spectrum
        axes = 0.3 * draw(k, 16, dimension) * spectrum * fall(16, 0.5)[:, None]
        rows = torch.empty((count, dimension), device=self.device)
        for one in range(k):
            own = (classes == one).nonzero()[:, 0]
            spread = 0.8 * draw(len(own), dimension) * noise + draw(len(own), 16) @ axes[one]
            rows[own] = means[one] + common + torch.exp(0.12 * draw(len(own), 1)) * spread
        return torch.nn.functional.normalize(rows, dim=1).cpu().numpy(), classes.cpu().numpy()

    def link_photographs(self, count: int) -> Path:
        """A folder of so many JPEG files: links to the photographs, again and again under other names."""
        folder = self.scratch / f"photographs-{count}"
        if not folder.exists():
            folder.mkdir()
            found = find_images(self.images or self._make_pictures())
            for number, name in zip(range(count), itertools.cycle(found.names), strict=False):
                file = found.root / name
                (folder / f"{number:05d}{file.suffix}").symlink_to(file.resolve())
        return folder

    def _make_pictures(self) -> Path:
        """The demonstration's scenes, as large as photographs of VOC; discs on noise where scikit-image is missing."""
        folder = self.scratch / "pictures"
        if folder.exists():
            return folder
        making = self.scratch / "pictures.new"
        making.mkdir(exist_ok=True)
        count = self.choose(64, 8)
        try:
            from fastcomus.cli.demo.scenes import make_scenes

            names = make_scenes(making, count, 0)
            pictures = [Image.open(making / "images" / name).resize(SIZE) for name in names]
        except (ImportError, InputError):
            pictures = [_draw_picture(number) for number in range(count)]
        folder.mkdir()
        for number, picture in enumerate(pictures):
            picture.save(folder / f"{number:03d}.jpg", quality=90)
        return folder

    def read_photographs(self, count: int) -> list[np.ndarray]:
        """Pixels (H, W, 3) uint8 of so many photographs, decoded by the CPU."""
        folder = self.link_photographs(count)
        return [self.cpu.decode(str(file), 10**8) for file in sorted(folder.iterdir())]

    # -- networks -------------------------------------------------------------------------------------------------

    def make_weights(self, name: str) -> str:
        """A file of random weights, whose speed is that of others: of a timm network, or "basnet"."""
        from safetensors.torch import save_file

        file = self.scratch / f"{name}.safetensors"
        if not file.exists():
            torch.manual_seed(0)
            network: torch.nn.Module
            if name == "basnet":
                from fastcomus.objects.saliency.basnet import BASNet

                network = BASNet()
            else:
                import timm

                network = timm.create_model(name)
            save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
        return str(file)

    def choose_encoder(self) -> dict[str, Any]:
        """DINO's ViT-S/8 on crops of 256 px, or a small network."""
        name = self.choose("vit_small_patch8_224.dino", "test_efficientnet")
        return {"encoder": name, "encoder_weights": self.make_weights(name), "crop_size": self.choose(256, 32)}

    def choose_backbone(self) -> dict[str, Any]:
        name = self.choose("resnet50", "test_efficientnet")
        return {"backbone": name, "backbone_weights": self.make_weights(name)}

    def make_saliency_network(self) -> str:
        """A file as train-saliency writes it, of random weights, to be joined with all priors."""
        from fastcomus.config import SALIENCY_PRIORS
        from fastcomus.objects.saliency.network_map import SaliencyNetwork, save_network

        file = self.scratch / "saliency.safetensors"
        if not file.exists():
            torch.manual_seed(0)
            network = SaliencyNetwork(*self.choose(("basnet", 256), ("test_efficientnet", 65)))
            save_network(network, SALIENCY_PRIORS, "", file)
        return str(file)

    def make_run(self, name: str) -> Run:
        """A run in a new folder of the scratch, on the device by the code that a GPU runs."""
        folders = (self.scratch / f"run-{name}-{number}" for number in itertools.count())
        run = Run(next(one for one in folders if not one.exists()), preset="offline", device=str(self.device))
        if self.device.type == "cpu":
            run.workplace.backend = self.torch_backend
        return run


def measure_difference(one: Any, other: Any) -> float:
    """The largest absolute difference, as a share of the largest absolute value; infinite where shapes differ."""
    ours, theirs = (torch.as_tensor(value).detach().float().cpu() for value in (one, other))
    if ours.shape != theirs.shape:
        return math.inf
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12)) if ours.numel() else 0.0


def _draw_picture(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    ground = Image.fromarray(rng.integers(60, 120, (24, 32, 3), np.uint8)).resize(SIZE)
    x, y, radius = int(rng.integers(150, 350)), int(rng.integers(120, 250)), int(rng.integers(50, 110))
    colour = tuple(int(one) for one in rng.integers(120, 256, 3))
    ImageDraw.Draw(ground).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return ground
