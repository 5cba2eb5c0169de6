"""What the fork server imports once: every module of a run, with networks and solvers used once."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path

import torch

torch.set_num_threads(1)

import crash_stages  # noqa: E402

with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(Exception):
    logging.disable(logging.CRITICAL)
    crash_stages.warm_up(Path(scratch))
