"""The run store as commands open it: what goes wrong with it is one sentence for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import CommandError

if TYPE_CHECKING:
    from ..store import RunStore


@contextmanager
def opened_store(*, create: bool = True) -> Iterator[RunStore]:
    """The run store that `NIN_DATABASE_URL` names.

    Raises:
        CommandError: for what the store refuses or cannot do inside the block, too.
    """
    from ..store import RunStore, StoreError

    try:
        yield RunStore(create=create)
    except StoreError as error:
        raise CommandError(str(error)) from error


def weights_of(store: RunStore, run_id: int) -> bytes:
    """The weights of a run.

    Raises:
        CommandError: if there are none.
    """
    checkpoint = store.load_checkpoint(run_id)
    if checkpoint is None:
        raise CommandError(f"There is no run #{run_id} with weights.")
    return checkpoint.blob
