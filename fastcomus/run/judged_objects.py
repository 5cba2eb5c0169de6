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
from fastcomus.run.embed_work import EmbeddedShard, cut_into_shards, make_embed_work
from fastcomus.run.engines.work import Engine
from fastcomus.run.workplace import Workplace
from fastcomus.store.integrity import seal_json
from fastcomus.store.sealed_json import compute_fingerprint, read_sealed

if TYPE_CHECKING:
    from fastcomus.objects.verdict import Verdict

log = logging.getLogger("fastcomus")
ONE, SEVERAL, ALWAYS_SEVERAL = "one", "several", "always-several"
_MOST = 150  # photographs that are judged, each of which is embedded two times
_LEAST = 30  # of fewer too few have their like among the others
_SHARD = 25  # photographs that are judged at a time


def settle_objects(
    found: ImageList, config: Config, mark: str, at: Workplace, engine: Engine, obtain: Callable[[], str]
) -> str:
    """Return "one" or "several": what `config.embed.objects` asks for, or what a verdict on the photographs says.

    Args:
        found: The photographs.
        config: The settings.
        mark: What `mark_saliency` returns for them.
        at: The run folder, the seed and the device.
        engine: Where photographs are embedded.
        obtain: Returns the saliency method or file that the mark stands for; called if there is no verdict yet.
    """
    marked = dataclasses.replace(config.embed, saliency=mark)
    if not count_judged(found, marked, at):
        return presume_objects(found, marked, at)
    judged = draw_images(found, _MOST, at.config.seed)
    file = _locate_verdict(judged, marked, at)  # before they are read: of what is in them then
    verdict, is_final = _judge(judged, dataclasses.replace(marked, saliency=obtain()), at, engine)
    settled, shown = SEVERAL, "several objects each"
    if verdict.photographs < _LEAST:
        shown = f"too little to tell one object each from several (below {_LEAST}); several are looked for"
    elif not verdict.is_several:
        settled, shown = ONE, f"one object each, which is what is looked for; --objects {ALWAYS_SEVERAL} looks for more"
    log.info("embed: %d photographs, looked at both ways, show %s", verdict.photographs, shown)
    if is_final:
        at.remember(config)
        facts = {**asdict(verdict), "objects": settled}
        at.folder.write_json(file.relative_to(at.folder.path).as_posix(), seal_json(facts))
    return settled


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
    """MaskCut says itself how many objects there are, as masks do."""
    asked = config.objects == SEVERAL and not config.masks and config.saliency != "maskcut"
    return asked and len(found.names) >= _LEAST


def _locate_verdict(judged: ImageList, config: EmbedConfig, at: Workplace) -> Path:
    """The file of the verdict on these images with these settings, sealed JSON."""
    whole = compute_fingerprint(judged=[shard.fingerprint for shard in cut_into_shards(judged, config)])
    return at.folder.resolve_file(f"objects/verdict-{whole[:12]}.json")


def _judge(judged: ImageList, config: EmbedConfig, at: Workplace, engine: Engine) -> tuple[Verdict, bool]:
    """The verdict, and whether all images could be reached."""
    import pyarrow as pa

    from fastcomus.objects.embedding import list_lost_images
    from fastcomus.objects.verdict import judge_objects

    tables, lost = [], 0
    with (
        show_progress("one object or several", 2 * len(judged.names), "images") as advance,
        collect_counts(),  # images that are judged are not counted as those of embed
    ):

        def go_on(images: int) -> None:
            advance(images)
            reach_safe_point()

        for objects in (ONE, SEVERAL):
            look = dataclasses.replace(config, objects=objects, shard_images=_SHARD, compile=False)
            shards = cut_into_shards(judged, look)
            with engine.stream_results(make_embed_work(judged.root, look), shards, _keep, go_on) as made:
                parts = sorted(made, key=lambda part: part.index)
            lost += sum(len(list_lost_images(part.shard.skipped)) for part in parts)
            tables.append(pa.concat_tables(part.shard.objects for part in parts))
    return judge_objects(*tables), not lost


def _keep(made: EmbeddedShard) -> EmbeddedShard:
    return made
