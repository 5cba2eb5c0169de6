"""What `run` would do: the stages, what of each is there already, and about how long the rest takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fastcomus.config import TRAINING_STEPS
from fastcomus.images.found import ImageList
from fastcomus.images.listing import Images
from fastcomus.run.check import check_run
from fastcomus.run.contents import list_iterations
from fastcomus.run.embed import count_missing_images
from fastcomus.run.judged_objects import ONE, presume_objects
from fastcomus.run.own_network import estimate_teaching, has_enough_images, mark_saliency
from fastcomus.run.workplace import Workplace
from fastcomus.store.objects_table import read_objects_fingerprint
from fastcomus.store.sealed_json import compute_fingerprint

# Of two cores without a GPU, in preset offline.
_EMBEDDED_PER_S, _TRAINED_PER_S, _LABELLED_PER_S = 17.0, 5.0, 5.0
_TAKEN_APART_PER_S, _JUDGED_PER_S = 6.0, 5.0  # with --objects several


@dataclass(frozen=True)
class PlannedStage:
    """A stage of `run`.

    Attributes:
        stage: Its name.
        work: What would be done.
        kept: What is there already.
        seconds: About how long it takes; 0 where nothing is to be done, None where that is not known.
    """

    stage: str
    work: str
    kept: str
    seconds: float | None


def plan_run(
    at: Workplace, images: Images, truth: Path | str, classes: Path | str, replace: bool = False
) -> list[PlannedStage]:
    """Say what `run` would do; nothing is written, no network is loaded.

    Args:
        at: The run folder with the settings that `run` would have.
        images: As for `Run.run`.
        truth: As for `Run.run`.
        classes: As for `Run.run`.
        replace: As for `Run.run`.

    Raises:
        InputError: As `run` would.
    """
    from fastcomus.networks.schedules import choose_epochs  # only now: torch takes a second

    found = check_run(at, images, truth, classes)
    count, missing = len(found.names), count_missing_images(at, found, replace)
    embedding = _plan_embedding(at, found, missing)
    is_clustered = not missing and _has_clusters(at)
    wanted_k = f"k = {at.config.cluster.k}" if at.config.cluster.k else "k found by itself"
    clustering = PlannedStage(
        "cluster", "" if is_clustered else wanted_k, "clusters" if is_clustered else "", 0.0 if is_clustered else 10.0
    )
    done = len(list_iterations(at.folder)) - 1 if is_clustered and at.folder.read_manifest("iteration-0") else 0
    train = at.config.train
    wanted = train.iterations or (2 if train.extend else 1)
    left = [one for one in range(1, wanted + 1) if one > done]
    asked = [train.epochs if one == 1 else train.next_epochs for one in left]
    learnt = round((1 - at.config.cluster.filter) * count)
    passes = sum(choose_epochs(one, learnt, train.batch_size, TRAINING_STEPS) for one in asked)
    seconds = passes * learnt / _TRAINED_PER_S + len(left) * count / _LABELLED_PER_S
    training = PlannedStage(
        "train", f"iterations {', '.join(map(str, left))}, {passes} epochs" if left else "",
        f"{min(done, wanted)} iterations, where their settings are the same" if done else "",
        seconds if at.backend.device_name == "cpu" else None if left else 0.0,
    )  # fmt: skip
    return [embedding, clustering, training]


def _plan_embedding(at: Workplace, found: ImageList, missing: int) -> PlannedStage:
    count, mark = len(found.names), mark_saliency(found, at.config)
    known = presume_objects(found, replace(at.config.embed, saliency=mark), at)
    teachers, seconds = estimate_teaching(mark, found, at) if missing else (0, 0.0)
    lesson = "a network" if has_enough_images(found, at.config) else "what they have in common"
    work = f"{missing} photographs"
    if teachers:
        work += f", of which {teachers} first teach {lesson}"
    if known.judged:
        work += f", {known.count} are first looked at for several objects"
    rate = _EMBEDDED_PER_S if known.objects == ONE else _TAKEN_APART_PER_S
    seconds += missing / rate + known.count / _JUDGED_PER_S
    return PlannedStage("embed", work if missing else "", f"{count - missing} of {count} photographs", seconds)


def _has_clusters(at: Workplace) -> bool:
    source = read_objects_fingerprint(at.folder)
    whole = compute_fingerprint(config=asdict(at.config.cluster), seed=at.config.seed, source=source)
    return at.folder.is_current("clusters", whole)
