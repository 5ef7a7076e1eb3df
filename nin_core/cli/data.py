"""The command `data`: a data set found or fetched, verified, and where it is."""

from __future__ import annotations

import argparse
import sys

from ..datasets import DATASETS
from .arguments import Commands, add_command
from .output import CommandError, shape_text


def add_data(commands: Commands) -> None:
    """`data`: find or fetch a data set."""
    text = "find or fetch a data set, verify it, and say where it is"
    command = add_command(commands, "data", text)
    command.set_defaults(action=_data)
    command.add_argument("name", metavar="NAME", help=", ".join(DATASETS))


def _data(options: argparse.Namespace) -> int:
    from ..data import DataError, load_dataset

    moving = sys.stderr.isatty()

    def progress(sentence: str, fraction: float) -> None:
        if moving:
            print(f"\r\x1b[K{sentence} {fraction:4.0%}", end="", file=sys.stderr, flush=True)

    try:
        dataset = load_dataset(options.name, progress=progress)
    except DataError as error:
        raise CommandError(str(error)) from error
    finally:
        if moving:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    shape = shape_text(dataset.train_images.shape[1:])
    print(dataset.source)
    print(
        f"{len(dataset.train_labels):,} training and {len(dataset.test_labels):,} test images, "
        f"{shape}, {len(dataset.class_names)} classes: {', '.join(dataset.class_names)}."
    )
    return 0
