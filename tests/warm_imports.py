"""What the fork server imports once: every module of a run, with networks and solvers used once."""

from __future__ import annotations

import contextlib
import gc
import logging
import tempfile
from pathlib import Path

import torch

torch.set_num_threads(1)

import crash_stages  # noqa: E402

with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(Exception):
    logging.disable(logging.CRITICAL)
    crash_stages.warm_up(Path(scratch))

gc.freeze()  # in a process that is forked from this one, looking through what is there would copy it
