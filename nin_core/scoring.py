"""A run's weights measured on its test set apart from its training, and how a measurement is kept.

Choices made here:

* It is done in a process of its own, `python -m nin_core.scoring RUN_ID ATTEMPT PARENT`, for which
  whoever asked holds the run's slot, says that it lives, and lets go of it. With the process that
  asked it ends, too.
* The same is measured and kept as at a run's end (`worker`), whatever kept that from being done.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from . import garbage
from .checks import ConfigError
from .machine import PROJECT, available_cores
from .processes import is_orphaned, this_worker
from .reporter import patiently
from .store import RunStore, StoreError
from .supervisor import LOG_TAIL, NICENESS, last_line

if TYPE_CHECKING:
    from .diagnosis import Diagnosis, Evaluation

SIGN_SECONDS = 2.0  # between signs of life of a run that is measured


def measure_again(store: RunStore, run_id: int, *, wait: bool = False) -> None:
    """Have a run that has ended, or pauses, measured on its test set.

    Args:
        wait: until that is done.

    Raises:
        ConfigError: if it has no weights, or is of another version; if it is waited for, also if it
            could not be measured, and why.
        StateError: while it waits or trains, or is measured already.
        StoreError: if the store cannot be used.
    """
    run = store.get(run_id)
    if run.network is None or run.train is None or not run.has_checkpoint:
        raise ConfigError(run.problem or f"Run #{run_id} has no weights that could be measured.")
    attempt = store.begin_measuring(run_id, this_worker())
    if wait:
        problem = _measure_elsewhere(store, run_id, attempt)
        if problem:
            raise ConfigError(f"Run #{run_id} could not be measured: {problem}")
    else:
        measure_beside(store, run_id, attempt)


def measure_each(store: RunStore, run_ids: Sequence[int], *, wait: bool) -> None:
    """Have those of the runs measured that have weights and were not, one after another.

    One that cannot be now is left as it is: it can be measured at any time.

    Args:
        wait: until that is done.
    """
    if not wait and len(run_ids) > 1:
        threading.Thread(
            target=measure_each,
            args=(store, run_ids),
            kwargs={"wait": True},
            name="measure-runs",
            daemon=True,
        ).start()
        return
    for run_id in run_ids:
        with suppress(ConfigError, StoreError):
            run = store.get(run_id)
            if run.has_checkpoint and not run.has_evaluation:
                measure_again(store, run_id, wait=wait)


def measure_beside(store: RunStore, run_id: int, attempt: int) -> None:
    """Have a run measured whose slot this process holds under `attempt`, and do not wait for it."""
    threading.Thread(
        target=_measure_elsewhere,
        args=(store, run_id, attempt),
        name=f"measure-run-{run_id}",
        daemon=True,  # should this process end first, the next `advance` frees the slot
    ).start()


def keep_result(
    store: RunStore,
    run_id: int,
    attempt: int,
    result: Evaluation,
    *,
    step: int,
    parent: int | None = None,
) -> None:
    """Store what was measured of the weights after `step` steps.

    Args:
        parent: as for `reporter.patiently`.
    """
    from .evaluation import pack_logits

    images, classes = result.logits.shape
    logits = pack_logits(result.logits.numpy())
    patiently(
        lambda: store.save_evaluation(
            run_id,
            logits,
            images=images,
            classes=classes,
            step=step,
            loss=result.loss,
            accuracy=result.accuracy,
            attempt=attempt,
        ),
        parent,
    )


def keep_diagnosis(
    store: RunStore, run_id: int, attempt: int, diagnosis: Diagnosis | None, state: str
) -> None:
    """Write down why a run in `state` does not learn, if that is news.

    That a few steps were not enough is none; that maps are dead is.
    """
    if diagnosis and (state == "finished" or diagnosis.dead_class_maps):
        store.note(run_id, attempt, diagnosis=diagnosis.sentence)


def _measure_elsewhere(store: RunStore, run_id: int, attempt: int) -> str | None:
    """Measure in a process of its own, wait for it, and let go of the run.

    Returns:
        why it could not be measured; None if it was.
    """
    command = [sys.executable, "-m", "nin_core.scoring", *map(str, (run_id, attempt, os.getpid()))]
    log, problem = "", None
    try:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=os.environ | {"NIN_DATABASE_URL": store.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        while process.returncode is None:
            try:
                output, _ = process.communicate(timeout=SIGN_SECONDS)
                log = output.decode("utf-8", "replace")[-LOG_TAIL:]
            except subprocess.TimeoutExpired:
                with suppress(StoreError):
                    if not store.still_measuring(run_id, attempt):
                        process.kill()  # the run was deleted
        if process.returncode:
            # Of a traceback's last line, what follows the name of the error.
            problem = re.sub(r"^[\w.]+: ", "", last_line(log)) or "its process was killed."
    except OSError as error:
        log = problem = f"The test set could not be measured: {error}"
    finally:
        _let_go(store, run_id, attempt, log)
    return problem


def _let_go(store: RunStore, run_id: int, attempt: int, log: str) -> None:
    """Free the run's slot, however long the store fails: nobody else does while this one lives."""
    command = threading.current_thread() is threading.main_thread()  # and its process ends with it
    with suppress(StoreError):
        patiently(
            lambda: store.release(run_id, attempt, log=log or None),
            seconds=None if command else math.inf,
        )


def _measure(store: RunStore, run_id: int, attempt: int, parent: int) -> None:
    """Store the logits of a run's checkpoint on its test set, and what stands out in them.

    Args:
        parent: the process with whose end this ends; then nothing more is stored.
    """
    import torch

    from .data import load_dataset
    from .diagnosis import diagnose, evaluate
    from .features import load_model
    from .inputs import Inputs
    from .worker import MOST_PROBE

    def gone() -> bool:
        return is_orphaned(parent)

    run, checkpoint = store.get(run_id), store.load_checkpoint(run_id)
    if run.network is None or run.train is None or checkpoint is None:
        raise ConfigError(run.problem or f"Run #{run_id} has no weights.")
    running = len(store.list_runs(states=["running"]))
    torch.set_num_threads(1)
    threads = max(1, available_cores() // (running + 1))
    data = load_dataset(run.dataset)
    model = load_model(run.network, checkpoint.blob)
    inputs = Inputs.of(run.network, data, run.train)
    images, labels = data.test_images, data.test_labels
    result = evaluate(model, images, labels, inputs, threads=threads, should_stop=gone)
    if gone():
        return
    keep_result(store, run_id, attempt, result, step=checkpoint.step, parent=parent)
    probe = slice(MOST_PROBE)
    diagnosis = diagnose(model, images[probe], labels[probe], inputs, recipe=run.train.recipe)
    keep_diagnosis(store, run_id, attempt, diagnosis, run.state)


def main(arguments: Sequence[str]) -> int:
    """Measure a run: `python -m nin_core.scoring RUN_ID ATTEMPT PARENT`."""
    run_id, attempt, parent = map(int, arguments)
    with suppress(OSError, AttributeError):  # not every system knows priorities
        os.nice(NICENESS)
    _measure(RunStore(create=False), run_id, attempt, parent)
    return 0


if __name__ == "__main__":
    garbage.exit_quickly()
    sys.exit(main(sys.argv[1:]))
