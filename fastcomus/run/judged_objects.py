"""`--objects several`: a verdict on some of the photographs says whether all are searched for several objects each.

The verdict stays in the run folder, so that only the first `embed` of these images with these settings has to judge.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fastcomus.config import Config, EmbedConfig
from fastcomus.images.found import ImageList
from fastcomus.interruption import reach_safe_point
from fastcomus.progress import collect_counts, show_progress
from fastcomus.run.drawn_images import draw_images
from fastcomus.run.embed_work import cut_into_shards, make_embed_work
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


@dataclass(frozen=True)
class Presumed:
    """What is known before photographs are judged.

    Attributes:
        objects: "one" or "several"; "several" until a verdict that is asked for is there.
        judged: The photographs that have to be judged first, or None.
        file: Of their verdict, sealed JSON, within the run folder.
    """

    objects: str
    judged: ImageList | None = None
    file: str = ""

    @property
    def count(self) -> int:
        """How many photographs have to be judged first."""
        return len(self.judged.names) if self.judged else 0


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
    known = presume_objects(found, marked, at)
    if not known.judged:
        return known.objects
    verdict, is_final = _judge(known.judged, dataclasses.replace(marked, saliency=obtain()), at, engine)
    settled, shown = SEVERAL, "several objects each"
    if verdict.photographs < _LEAST:
        shown = f"too little to tell one object each from several (below {_LEAST}); several are looked for"
    elif not verdict.is_several:
        settled, shown = ONE, f"one object each, which is what is looked for; --objects {ALWAYS_SEVERAL} looks for more"
    log.info("embed: %d photographs, looked at both ways, show %s", verdict.photographs, shown)
    if is_final:
        at.remember(config)
        at.folder.write_json(known.file, seal_json({**asdict(verdict), "objects": settled}))
    return settled


def presume_objects(found: ImageList, marked: EmbedConfig, at: Workplace) -> Presumed:
    """Return what is known without judging; `marked`: the settings, `saliency` being what `mark_saliency` returns.

    MaskCut says itself how many objects there are, as masks do.
    """
    is_asked = marked.objects == SEVERAL and not marked.masks and marked.saliency != "maskcut"
    if not is_asked or len(found.names) < _LEAST:
        return Presumed(ONE if marked.objects == ONE else SEVERAL)
    judged = draw_images(found, _MOST, at.config.seed)
    whole = compute_fingerprint(judged=[shard.fingerprint for shard in cut_into_shards(judged, marked)])
    name = f"objects/verdict-{whole[:12]}.json"
    file = at.folder.resolve_file(name)
    return Presumed(str(read_sealed(file)["objects"])) if file.exists() else Presumed(SEVERAL, judged, name)


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
            with engine.stream_results(make_embed_work(judged.root, look), shards, lambda part: part, go_on) as made:
                parts = sorted(made, key=lambda part: part.index)
            lost += sum(len(list_lost_images(part.shard.skipped)) for part in parts)
            tables.append(pa.concat_tables(part.shard.objects for part in parts))
    at.take_decoded_counts()  # nor are those that a GPU decoded
    return judge_objects(*tables), not lost
