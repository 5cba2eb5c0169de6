"""The folder clusters/ of a run: what `cluster` writes and later stages read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fastcomus.clustering import Clusters
from fastcomus.run_folder import RunFolder
from fastcomus.spectral import Eigenmaps


def write_clusters(
    folder: RunFolder, clusters: Clusters, maps: Eigenmaps | None, images: pa.ChunkedArray | None
) -> None:
    """clusters.parquet (a row per object, with its image where `images` names it), centres and eigenmaps."""
    if maps is not None:
        folder.write_array("clusters/eigenmaps.npy", maps.rows)
        folder.write_array("clusters/eigenvalues.npy", maps.eigenvalues)
    folder.write_array("clusters/centres.npy", clusters.centres)
    columns = {"cluster": clusters.labels, "distance": clusters.distances, "is_core": clusters.is_core}
    table = pa.table(columns)
    if images is not None:
        table = table.add_column(0, "image", images)
    folder.write_table("clusters/clusters.parquet", table)


def read_clusters(folder: RunFolder) -> Clusters:
    centres = folder.read_array("clusters/centres.npy")
    table = folder.read_table("clusters/clusters.parquet")
    labels = table["cluster"].to_numpy()
    return Clusters(
        labels,
        table["distance"].to_numpy(),
        table["is_core"].to_numpy(zero_copy_only=False),
        centres,
        np.bincount(labels, minlength=len(centres)),
    )


def read_eigenmaps(folder: RunFolder) -> Eigenmaps:
    """Those of the method spectral; the manifest of the clusters tells how exact they are."""
    manifest = folder.manifest("clusters") or {}
    rows, eigenvalues = (folder.read_array(f"clusters/{name}.npy") for name in ("eigenmaps", "eigenvalues"))
    return Eigenmaps(rows, eigenvalues, manifest["residual"], manifest["orthonormality"])
