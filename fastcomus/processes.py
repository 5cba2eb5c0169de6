"""Processes that train one network together: their ranks, and how they exchange values.

`torchrun` (or Slurm's `srun`) starts the same command N times; environment variables tell each its rank. A command
that was started alone is a group of one, which does not communicate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fastcomus.errors import InputError

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")

_PATIENCE = timedelta(hours=2)  # one process may read or write for long while the others wait
_PORT = "29511"


@dataclass(frozen=True)
class ProcessGroup:
    """The processes and which of them this one is.

    Attributes:
        rank: This process, in [0, size).
        size: The number of processes.
        local_rank: This process among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all share: settings, checkpoints, manifests."""
        return self.rank == 0

    def choose_device(self, wanted: str) -> str:
        """Return the device of this process: each of several that want "cuda" (or "auto") gets its own GPU."""
        if self.size == 1 or wanted not in ("auto", "cuda"):
            return wanted
        import torch

        return f"cuda:{self.local_rank}" if torch.cuda.is_available() else wanted

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of `tensor` over all processes, computed in place."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Value) -> Value:
        """Return, in every process, the `value` of the first one. Waits for all."""
        return self.gather(value)[0]

    def gather(self, value: Value) -> list[Value]:
        """Return, in every process, the values of all in the order of ranks. Waits for all."""
        if self.size == 1:
            return [value]
        import torch.distributed

        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.gather(None)

    @contextmanager
    def connect(self, device: torch.device) -> Iterator[None]:
        """Connect the processes for the block: by NCCL between CUDA devices, else gloo.

        Args:
            device: The device of this process.

        Raises:
            InputError: Another process has ended.
        """
        if self.size == 1:
            yield
            return
        import torch
        import torch.distributed

        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            torch.distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                rank=self.rank,
                world_size=self.size,
                timeout=_PATIENCE,
            )
            yield
        except RuntimeError as error:
            if not _is_lost_connection(error):
                raise
            raise InputError(
                f"process {self.rank} lost touch with the {self.size - 1} others that train with it, so one of them "
                "has ended (its own message says why); start the same command again, it goes on from the last "
                "checkpoint."
            ) from error
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def detect_process_group(environment: Mapping[str, str] | None = None) -> ProcessGroup:
    """Read the process group from torchrun's variables or, under `srun`, from Slurm's.

    Args:
        environment: The variables; by default those of this process.

    Raises:
        InputError: Slurm uses several machines and MASTER_ADDR is not set.
    """
    env = os.environ if environment is None else environment
    is_torchrun = "RANK" in env and "WORLD_SIZE" in env
    # A script that sbatch starts is alone, though it has SLURM_PROCID; srun tells its processes how many they are.
    if not is_torchrun and int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in env:
        if int(env.get("SLURM_NNODES", 1)) > 1 and "MASTER_ADDR" not in env:
            raise InputError(
                "training on several machines under Slurm needs the address of the first; export "
                "MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1) before srun."
            )
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", _PORT)
        return ProcessGroup(
            *(int(env.get(name, 0)) for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))
        )
    if not is_torchrun:
        return ProcessGroup()
    return ProcessGroup(int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0)))


def _is_lost_connection(error: RuntimeError) -> bool:
    import torch.distributed

    told = str(error).lower()
    signs = ("connection closed", "connection reset", "broken pipe", "timed out", "timeout", "socket")
    return isinstance(error, torch.distributed.DistError) or any(sign in told for sign in signs)
