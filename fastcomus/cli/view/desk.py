"""What the page may do to a run: look, name, correct, undo, train. One thing at a time, each whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fastcomus.cli.view.training import Training
from fastcomus.clusters.corrections import settle_corrections
from fastcomus.clusters.files import read_clusters, read_names
from fastcomus.errors import InputError
from fastcomus.report.colours import choose_cluster_colours
from fastcomus.report.shown_names import ShownNames
from fastcomus.run.contents import read_clusters_manifest, read_embedding_rows
from fastcomus.run.correct import find_alike_objects, put_back
from fastcomus.run.run import Run
from fastcomus.store.embeddings import normalise_rows
from fastcomus.store.objects_table import read_objects_fingerprint
from fastcomus.store.sealed_json import compute_fingerprint

_MOST_UNDONE = 100


class OutdatedError(InputError):
    """What was asked for concerns clusters that are no longer there."""


@dataclass(frozen=True)
class Words:
    """Everything that a person said about a run: names by cluster and corrections."""

    names: Mapping[int, str]
    corrections: pa.Table


@dataclass
class Desk:
    """A run as the page sees it.

    Attributes:
        run: The run.
        training: The process that trains, started by the page.
    """

    run: Run
    training: Training
    _undoable: list[Words] = field(default_factory=list)
    _undoable_for: str = ""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _rows: tuple[str, np.ndarray] | None = None
    _shown: str = ""
    _reporting: threading.Lock = field(default_factory=threading.Lock)

    def refresh_report(self) -> None:
        """Write the report anew where it shows other clusters than those that are there."""
        with self._reporting:
            clusters = read_clusters_manifest(self.run.folder)["fingerprint"]
            if clusters != self._shown:
                self.run.report()
                self._shown = clusters

    def read_version(self) -> dict[str, Any]:
        """Return what changes with every save and whenever another process makes something."""
        folder = self.run.folder
        manifest = read_clusters_manifest(folder)
        names = read_names(folder, manifest).given
        report = folder.read_manifest("report") or {}
        version = compute_fingerprint(clusters=manifest["corrected"], names=names)
        return {
            "clusters": manifest["fingerprint"],
            "version": version,
            "report": report.get("fingerprint", ""),
            "training": self.training.describe(),
        }

    def read_state(self) -> dict[str, Any]:
        """Return `read_version` with names, colours and the cluster of every object."""
        with self._lock:
            folder, version = self.run.folder, self.read_version()
            manifest = read_clusters_manifest(folder)
            clusters, names = read_clusters(folder), ShownNames(read_names(folder, manifest))
            corrections = self.run.correct()
            k = len(clusters.sizes)
            return {
                **version,
                "names": {str(cluster): name for cluster, name in names.given.items()},
                "labels": [names.get_label(cluster) for cluster in range(k)],
                "colours": choose_cluster_colours(k, names),
                "sizes": clusters.sizes.tolist(),
                "cluster": clusters.labels.tolist(),
                "corrected": sorted(settle_corrections(corrections)),
                "undo": bool(len(corrections) or self._undoable),
            }

    def save(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the page asks for and return the new state.

        Args:
            wanted: `clusters`, the fingerprint of the clusters that the page shows; `do`, one of "name" (with `names`,
                by cluster, null takes one away), "move" (with `objects` and `to`, see `Run.correct`), "undo", "train"
                and "stop".

        Raises:
            OutdatedError: If other clusters were made since.
            InputError: If it cannot be done.
        """
        with self._lock:
            if wanted.get("clusters") != read_clusters_manifest(self.run.folder)["fingerprint"]:
                raise OutdatedError("other clusters were made since this page was opened, so nothing was saved.")
            action = wanted.get("do")
            if action == "train":
                self.training.start()
            elif action == "stop":
                self.training.stop()
            elif action == "undo":
                self._undo()
            elif action == "name":
                self._remember_words(lambda: self.run.name(_read_names(wanted.get("names"))))
            elif action == "move":
                objects, to = wanted.get("objects"), wanted.get("to")
                if not isinstance(objects, list) or not isinstance(to, int | str):
                    raise InputError("a move needs objects, a list of rows, and to.")
                self._remember_words(lambda: self.run.correct(objects, to))
            else:
                raise InputError(f"there is nothing called {action!r} to do.")
            return self.read_state()

    def find_nearest(self, row: int, count: int) -> list[int]:
        """Return the rows of the objects most like one, itself first."""
        rows = self._read_rows()
        if not 0 <= row < len(rows):
            raise InputError(f"there is no object {row}; the objects of this run are the rows 0 to {len(rows) - 1}.")
        likeness = rows @ rows[row]
        likeness[row] = np.inf
        best = np.argpartition(-likeness, min(count, len(rows) - 1))[:count]
        nearest: list[int] = best[np.argsort(-likeness[best], kind="stable")].tolist()
        return nearest

    def find_alike(self, objects: Any) -> list[int]:
        """Return the rows of the objects that are more like those given than like their own cluster."""
        if not isinstance(objects, list):
            raise InputError("what is like some objects needs objects, a list of rows.")
        found: list[int] = find_alike_objects(self.run.folder, objects, self._read_rows()).tolist()
        return found

    def _read_rows(self) -> np.ndarray:
        """Return the embeddings, (N, D) float32 of length 1, which are read once."""
        with self._lock:
            source = read_objects_fingerprint(self.run.folder)
            if self._rows is None or self._rows[0] != source:
                self._rows = source, normalise_rows(read_embedding_rows(self.run.folder))
            return self._rows[1]

    def _remember_words(self, save: Any) -> None:
        """Save, and keep what was said before, for undo."""
        before = self._read_words()
        save()
        self._undoable = [*self._undoable, before][-_MOST_UNDONE:]

    def _undo(self) -> None:
        before = self._read_words()  # forgets the words about other clusters
        if self._undoable:
            words = self._undoable[-1]
            put_back(self.run.workplace, words.corrections, words.names)
            self._undoable.pop()
        elif len(before.corrections):
            self.run.correct(undo=True)
        else:
            raise InputError("there is nothing to undo.")

    def _read_words(self) -> Words:
        manifest = read_clusters_manifest(self.run.folder)
        if self._undoable_for != manifest["fingerprint"]:
            self._undoable, self._undoable_for = [], manifest["fingerprint"]
        return Words(dict(read_names(self.run.folder, manifest).given), self.run.correct())


def _read_names(names: Any) -> dict[int, str | None]:
    if not isinstance(names, dict) or not all(isinstance(one, str | None) for one in names.values()):
        raise InputError("names are given by cluster, as texts.")
    if not all(cluster.isascii() and cluster.isdecimal() for cluster in names):
        raise InputError("names are given by the number of the cluster.")
    return {int(cluster): name for cluster, name in names.items()}
