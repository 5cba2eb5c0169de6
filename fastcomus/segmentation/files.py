"""Files of an iteration's network in the run folder: weights, state of the training, and training curve."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from fastcomus.errors import InputError, get_first_line
from fastcomus.networks import weights
from fastcomus.segmentation.segmenter import Segmenter, build_segmenter
from fastcomus.segmentation.training import Checkpoint, EpochRow
from fastcomus.store.folder import build_write_error
from fastcomus.store.integrity import (
    TENSOR_SEAL,
    check_zip,
    compute_tensor_digest,
    read_sealed_facts,
    read_sealed_tensors,
)
from fastcomus.store.run_folder import RunFolder

_WEIGHTS, _CURVE, _EARLIER = "segmenter.safetensors", "training.csv", "earlier"  # in the folder of an iteration
NETWORK_FILES = (_WEIGHTS, _CURVE, _EARLIER)
_MOST_EARLIER = 3  # networks that were trained with other settings


def has_segmenter(folder: RunFolder, iteration: int, trained_from: str) -> bool:
    """Tell whether an undamaged network is stored for an iteration (from 1), trained from this fingerprint."""
    return _read_origin(folder.resolve_file(_get_weights_file(iteration))) == trained_from


def restore_segmenter(folder: RunFolder, iteration: int, trained_from: str) -> bool:
    """Bring back a network that was put aside, if it was trained from this fingerprint; tell whether one is there."""
    if has_segmenter(folder, iteration, trained_from):
        return True
    place = _get_earlier_place(folder, iteration, trained_from)
    if _read_origin(place / _WEIGHTS) != trained_from:
        return False
    put_segmenter_aside(folder, iteration)
    for name in (_CURVE, _WEIGHTS):  # the network last: until then it is found where it was
        if (place / name).exists():
            _move(place / name, folder.resolve_file(f"iteration-{iteration}/{name}"))
    place.rmdir()
    return True


def put_segmenter_aside(folder: RunFolder, iteration: int) -> None:
    """Put the network of an iteration aside, with its training curve; of those put aside earlier the last few stay."""
    origin = _read_origin(folder.resolve_file(_get_weights_file(iteration)))
    if not origin:
        return
    place = _get_earlier_place(folder, iteration, origin)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise build_write_error(place, error) from error
    for name in (_CURVE, _WEIGHTS):
        if (file := folder.resolve_file(f"iteration-{iteration}/{name}")).exists():
            _move(file, place / name)
    others = sorted(place.parent.iterdir(), key=lambda one: one.stat().st_mtime_ns)
    for other in others[:-_MOST_EARLIER]:
        folder.remove(other.relative_to(folder.path).as_posix())


def _read_origin(file: Path) -> str:
    """Return the fingerprint of what a network was trained from; "" where there is none, or a damaged one."""
    try:
        return str(read_sealed_facts(file).get("trained_from", "")) if file.exists() else ""
    except Exception:  # damaged files raise errors of many kinds
        return ""


def _get_earlier_place(folder: RunFolder, iteration: int, trained_from: str) -> Path:
    return folder.path / f"iteration-{iteration}" / _EARLIER / trained_from[:12]


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        raise build_write_error(target, error) from error


def write_segmenter(folder: RunFolder, iteration: int, segmenter: Segmenter, trained_from: str) -> None:
    """Store a trained network's weights, sealed with a digest; `trained_from`: fingerprint of what they depend on."""
    state = {key: tensor.contiguous() for key, tensor in segmenter.state_dict().items()}
    metadata = {"fastcomus": json.dumps({TENSOR_SEAL: compute_tensor_digest(state), "trained_from": trained_from})}
    folder.write_tensors(_get_weights_file(iteration), lambda path: save_file(state, path, metadata))


def read_segmenter(folder: RunFolder, iteration: int, backbone: str, k: int, output_stride: int) -> Segmenter:
    """Read the network of an iteration, in eval mode on the CPU; its backbone's published weights are not needed.

    Raises:
        InputError: The file is missing, damaged, or holds a network of another k or backbone.
    """
    file = folder.resolve_file(_get_weights_file(iteration))
    segmenter = build_segmenter(backbone, "", k, output_stride, pretrained=False)
    try:
        state = read_sealed_tensors(file)
    except Exception as error:
        reason = get_first_line(error)
        raise InputError(
            f"{file} cannot be read ({reason}); delete the folder iteration-{iteration} and run fastcomus train."
        ) from error
    weights.load_exactly(segmenter, state, f"{file} (for k = {k} on {backbone})")
    return segmenter.eval()


def load_segmenter(folder: RunFolder, iteration: int) -> Segmenter:
    """Read the network of a finished iteration as its manifest describes it; see `read_segmenter`."""
    manifest = folder.read_manifest(f"iteration-{iteration}") or {}
    return read_segmenter(folder, iteration, manifest["backbone"], manifest["k"], manifest["output_stride"])


def write_training_state(folder: RunFolder, iteration: int, checkpoint: Checkpoint) -> None:
    """Store the training curve (training.csv), then the checkpoint (checkpoint.pt) that training resumes from.

    The curve is rewritten from the checkpoint's history each time, so that the two agree after an interruption.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in dataclasses.fields(EpochRow)], lineterminator="\n")
    writer.writeheader()
    rows = [asdict(row) for row in checkpoint.history]
    writer.writerows({**row, "images_per_s": f"{row['images_per_s']:.2f}"} for row in rows)
    folder.write_text(f"iteration-{iteration}/{_CURVE}", stream.getvalue())
    stored = {"history": rows, "steps": checkpoint.steps, "state": checkpoint.state}
    folder.write_tensors(_get_checkpoint_file(iteration), lambda path: torch.save(stored, path))


def read_training_state(folder: RunFolder, iteration: int) -> Checkpoint | None:
    """Read the checkpoint that training resumes from; None where none was stored yet, InputError if it is damaged."""
    file = folder.resolve_file(_get_checkpoint_file(iteration))
    if not file.exists():
        return None
    try:
        check_zip(file)
        saved = torch.load(file, map_location="cpu", weights_only=True)
        return Checkpoint(tuple(EpochRow(**row) for row in saved["history"]), saved["steps"], saved["state"])
    except Exception as error:
        reason = get_first_line(error)
        raise InputError(f"{file} cannot be read ({reason}); delete it to train from the start.") from error


def remove_training_state(folder: RunFolder, iteration: int) -> None:
    """Delete the checkpoint of an iteration whose training is finished."""
    folder.remove(_get_checkpoint_file(iteration))


def show_in_tensorboard(folder: RunFolder, iteration: int, row: EpochRow) -> None:
    """Add an epoch, its line of training.csv, to the run folder's `tensorboard` folder, if TensorBoard is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder.resolve_file(f"tensorboard/iteration-{iteration}"), purge_step=row.epoch) as writer:
        for name in ("loss", "agreement", "learning_rate", "images_per_s"):
            writer.add_scalar(name, getattr(row, name), row.epoch)


def _get_weights_file(iteration: int) -> str:
    return f"iteration-{iteration}/{_WEIGHTS}"


def _get_checkpoint_file(iteration: int) -> str:
    return f"iteration-{iteration}/checkpoint.pt"
