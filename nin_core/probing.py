"""A probe of this computer in a process of its own: `python -m nin_core.probing PLAN --with PID`.

Choices made here:

* A probe is a guest (see `tuning`): it ends within a step when a run is started, or waits, and when
  the process that asked for it is gone.
* A process, since a probe sets PyTorch's threads, and two in one process would measure each other.
* No torch here but in that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import garbage, tuning
from .config import NiNConfig
from .datasets import DATASETS
from .machine import PROJECT
from .processes import is_orphaned, this_host
from .recipes import TrainConfig
from .spare import WITH

if TYPE_CHECKING:
    from .store import RunStore

ASK_SECONDS = 0.25  # from one look at the store to the next
DISTURBED = 3  # exit code
BESIDE_OTHERS = (
    "A run trains on this computer or waits to, and two would measure each other; when nothing "
    "trains, it works."
)


class DisturbedError(RuntimeError):
    """A probe found the computer at work: one sentence."""


def in_the_way(store: RunStore, parent: int | None) -> Callable[[], bool]:
    """For `tuning.probe`: whether anything trains, or waits to, or the process `parent` is gone.

    A store that does not answer raises `StoreError`.
    """
    asked = 0.0

    def look() -> bool:
        nonlocal asked
        if time.monotonic() - asked < ASK_SECONDS:
            return False
        asked = time.monotonic()
        gone = parent is not None and is_orphaned(parent)
        assigned, waiting = store.work()
        return gone or waiting > 0 or any(run.worker_host == this_host() for run in assigned)

    return look


def probe_apart(
    store: RunStore,
    network: NiNConfig,
    train: TrainConfig,
    dataset: str,
    progress: Callable[[float], None],
) -> None:
    """Have a process find out how this computer trains such a network; wait for it.

    `tuning.known` says what was found.

    Args:
        progress: called with the share that is done, 0 to 1; what it raises ends the process.

    Raises:
        DisturbedError: if a run trains or waits, or comes meanwhile.
        RuntimeError: if the process fails, with the last line it printed.
    """
    plan = {"network": network.to_dict(), "train": train.to_dict(), "dataset": dataset}
    process = subprocess.Popen(
        [sys.executable, "-m", "nin_core.probing", json.dumps(plan), WITH, str(os.getpid())],
        cwd=PROJECT,
        env={**os.environ, "NIN_DATABASE_URL": store.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                progress(float(line))
            except ValueError:
                last = line.strip() or last
    finally:
        process.kill()
        code = process.wait()
    if code == DISTURBED:
        raise DisturbedError(BESIDE_OTHERS)
    if code:
        raise RuntimeError(last[:200] or "its process ended early")


def main(arguments: list[str]) -> int:
    """Probe for one plan and print the share that is done; `DISTURBED` beside other work."""
    from .store import RunStore, StoreError

    plan, _, parent = arguments
    given = json.loads(plan)
    network, train = NiNConfig.from_dict(given["network"]), TrainConfig.from_dict(given["train"])
    try:
        guest = in_the_way(RunStore(create=False), int(parent))
        if guest():
            return DISTURBED
        found = tuning.probe(
            network,
            train,
            DATASETS[given["dataset"]],
            should_stop=guest,
            progress=lambda done: print(done, flush=True),
        )
    except StoreError as error:
        print(error)
        return 1
    return DISTURBED if found is None else 0


if __name__ == "__main__":
    garbage.exit_quickly()
    sys.exit(main(sys.argv[1:]))
