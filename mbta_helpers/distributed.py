"""Several processes that train one model: each takes its rows of every batch.

`torchrun` starts the processes and tells each its number (its rank) in the environment. All of
them draw the same random numbers for the whole batch, so that the run is that of one process up to
the order of sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mbta_helpers.errors import require

TIMEOUT = timedelta(minutes=30)  # longer than the longest `collect`, for which the others wait


class Averaged(nn.Module):
    """The parameters of one optimiser, as a module that hands their loss through.

    DistributedDataParallel averages the gradients of the parameters of its module when a loss that
    passed through it goes backward; where the loss was computed does not matter to it. With one
    such module for each optimiser instead of one around the model, the E-step and the M-step
    exchange what they update and nothing else, and no parameter is ever unused.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        super().__init__()
        self.updated = nn.ParameterList(parameters)

    def forward(self, loss: Tensor) -> Tensor:
        return loss


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; alone by default.

    rank: its number, from 0. Rank 0 writes and prints for all.
    device: where it computes.
    """

    rank: int = 0
    count: int = 1
    device: str | torch.device = "cpu"

    @property
    def first(self) -> bool:
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """This process's rows of a batch; UserError unless the shares are equal."""
        require(
            batch_size % self.count == 0,
            f"A batch of {batch_size} windows cannot be shared out equally among {self.count} "
            f"processes. Start a number of processes that divides {batch_size}.",
        )
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def averaging(self, parameters: Iterable[nn.Parameter]) -> nn.Module:
        """What a loss passes through so that all processes get the mean gradient of parameters."""
        if self.count == 1:
            return nn.Identity()
        return DistributedDataParallel(Averaged(parameters))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each value over the processes."""
        if self.count == 1:
            return values
        # NCCL adds up what lies on the GPU only.
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, (total / self.count).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process: the answer is the same in all."""
        return self.mean({"flag": float(flag)})["flag"] > 0

    def agree(self, value: Any) -> bool:
        """Whether all processes hold an equal value."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return all(other == value for other in values)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.count > 1:
            dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """A block that rank 0 carries out before the others enter it."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


@contextmanager
def launched(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, connected; or this one alone.

    device: of that type; with CUDA, each process takes the GPU of its number on its machine.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=device)
        return
    if device.type == "cuda":
        local, here = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        require(
            local < here,
            f"There is no GPU for process {local + 1} of this machine, which has {here}. Start "
            f"torchrun with --nproc-per-node {here}.",
        )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    yield Processes(dist.get_rank(), count, device)
    # Not after an error: to take leave of processes that wait for this one might take for ever.
    dist.destroy_process_group()
