"""Settings that earlier versions wrote into run folders and this one no longer has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastcomus.settings import LEIDEN_IS_GONE

log = logging.getLogger("fastcomus")


def rewrite_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what an earlier version wrote into run.json and this one no longer has; said where it had an effect."""
    cluster = stored.get("cluster")
    return {**stored, "cluster": rewrite_cluster_settings(cluster)} if isinstance(cluster, Mapping) else dict(stored)


def rewrite_cluster_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Do the same for the table of `cluster` alone."""
    renewed = {name: value for name, value in stored.items() if name != "resolution"}
    for name, now in (("method", "communities"), ("choose_k", "mixing")):
        if renewed.get(name) == "leiden":
            renewed[name] = now
            log.warning("the %s leiden of this run folder %s; %s is taken in its place", name, LEIDEN_IS_GONE, now)
    return renewed
