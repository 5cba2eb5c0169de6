"""`--objects several`: a verdict on some of the photographs says whether all are searched for several objects each.

The verdict stays in the run folder, so that only the first `embed` of these images with these settings has to judge.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fastcomus.config import Config, EmbedConfig
from fastcomus.images.found import ImageList
from fastcomus.interruption import reach_safe_point
from fastcomus.progress import collect_counts, show_progress
from fastcomus.run.drawn_images import draw_images
from fastcomus.run.embed_work import cut_into_shards, make_embed_work
from fastcomus.run.workplace import Workplace
from fastcomus.store.integrity import seal_json
from fastcomus.store.sealed_json import compute_fingerprint, read_sealed

if TYPE_CHECKING:
    import pyarrow as pa

    from fastcomus.objects.verdict import Verdict

log = logging.getLogger("fastcomus")
ONE, SEVERAL, ALWAYS_SEVERAL = "one", "several", "always-several"
_MOST = 150  # photographs that are judged, each of which is embedded two times
_LEAST = 30  # of fewer too few have their like among the others


def settle_objects(found: ImageList, config: Config, mark: str, at: Workplace, obtain: Callable[[], str]) -> str:
    """Return "one" or "several": what `config.embed.objects` asks for, or what a verdict on the photographs says.

    Args:
        found: The photographs.
        config: The settings.
        mark: What `mark_saliency` returns for them.
        at: The run folder, the seed and the device.
        obtain: Returns the saliency method or file that the mark stands for; called if there is no verdict yet.
    """
    marked = dataclasses.replace(config.embed, saliency=mark)
    if _is_to_be_judged(found, marked):
        judged = draw_images(found, _MOST, at.config.seed)
        if not (file := _locate_verdict(judged, marked, at)).exists():
            verdict = _judge(judged, dataclasses.replace(marked, saliency=obtain()), at)
            at.remember(config)
            is_one = verdict.photographs >= _LEAST and not verdict.is_several
            facts = {**asdict(verdict), "objects": ONE if is_one else SEVERAL}
            at.folder.write_json(file.relative_to(at.folder.path).as_posix(), seal_json(facts))
        told = read_sealed(file)
        shown = "several objects each"
        if told["photographs"] < _LEAST:
            shown = "too little to say whether there is one object each, so that several are looked for"
        elif told["objects"] == ONE:
            shown = f"one object each, which is what is looked for; --objects {ALWAYS_SEVERAL} looks for more"
        log.info("embed: %d photographs, looked at both ways, show %s", told["photographs"], shown)
    return presume_objects(found, marked, at)


def presume_objects(found: ImageList, marked: EmbedConfig, at: Workplace) -> str:
    """Return what `settle_objects` does, but "several" where photographs would have to be judged first."""
    if not _is_to_be_judged(found, marked):
        return ONE if marked.objects == ONE else SEVERAL
    file = _locate_verdict(draw_images(found, _MOST, at.config.seed), marked, at)
    return str(read_sealed(file)["objects"]) if file.exists() else SEVERAL


def count_judged(found: ImageList, marked: EmbedConfig, at: Workplace) -> int:
    """Return how many photographs `settle_objects` would have to judge."""
    if not _is_to_be_judged(found, marked):
        return 0
    judged = draw_images(found, _MOST, at.config.seed)
    return 0 if _locate_verdict(judged, marked, at).exists() else len(judged.names)


def _is_to_be_judged(found: ImageList, config: EmbedConfig) -> bool:
    return config.objects == SEVERAL and not config.masks and len(found.names) >= _LEAST


def _locate_verdict(judged: ImageList, config: EmbedConfig, at: Workplace) -> Path:
    """The file of the verdict on these images with these settings, sealed JSON."""
    whole = compute_fingerprint(judged=[shard.fingerprint for shard in cut_into_shards(judged, config)])
    return at.folder.resolve_file(f"objects/verdict-{whole[:12]}.json")


def _judge(judged: ImageList, config: EmbedConfig, at: Workplace) -> Verdict:
    from fastcomus.objects.verdict import judge_objects

    with (
        show_progress("one object or several", 2 * len(judged.names), "images") as advance,
        collect_counts(),  # images that are judged are not counted as those of embed
    ):

        def go_on(images: int) -> None:
            advance(images)
            reach_safe_point()

        return judge_objects(
            *(_embed(judged, dataclasses.replace(config, objects=way), at, go_on) for way in (ONE, SEVERAL))
        )


def _embed(judged: ImageList, config: EmbedConfig, at: Workplace, go_on: Callable[[int], None]) -> pa.Table:
    """Find and embed the objects of images, in memory."""
    import pyarrow as pa

    embed_pieces = make_embed_work(judged.root, config).load(at.backend, at.workers)
    shards = embed_pieces(cut_into_shards(judged, config), lambda made: made.shard.objects, go_on)
    return pa.concat_tables(shards)
