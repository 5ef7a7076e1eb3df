"""Flags that several commands share, and what they say: a network, and how it is trained."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from ..config import PRESETS, NiNConfig, preset
from .output import CommandError

# What `add_subparsers` returns; argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: Fields of a recipe that are flags.
TRAINING_FLAGS = {
    "epochs": int,
    "seed": int,
    "batch_size": int,
    "learning_rate": float,
    "subset": int,
}


# --- declared ---------------------------------------------------------------------------------


def add_command(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    """A command with its line of help, which is a sentence on its own page."""
    return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")


def add_network(command: argparse.ArgumentParser) -> None:
    """A network's name, and what may be changed about it."""
    command.add_argument(
        "name",
        metavar="NAME",
        help=f"a preset ({', '.join(PRESETS)}), a file that `export --format json` wrote, or -",
    )
    command.add_argument(
        "--widths", type=_widths, help="width of every block but the last, e.g. 96,256,384"
    )
    command.add_argument("--global-pool", metavar="avg|max", help="pooling of the head")
    command.add_argument("--image-size", type=int, help="side of the input in pixels")
    command.add_argument("--dropout", type=float, help="dropout before the last block")
    flags = argparse.BooleanOptionalAction
    command.add_argument("--final-relu", action=flags, help="ReLU after the last convolution")
    command.add_argument("--batch-norm", action=flags, help="batch norm before every ReLU")


def add_json(command: argparse.ArgumentParser, default: Any = False) -> None:
    """Whether to print JSON lines instead of a table."""
    command.add_argument(
        "--json", action="store_true", default=default, help="JSON lines on stdout"
    )


def add_training(command: argparse.ArgumentParser, flags: Iterable[str] = TRAINING_FLAGS) -> None:
    """What may be changed about a recipe."""
    for name in flags:
        text = "number of training images to use" if name == "subset" else None
        command.add_argument(f"--{name.replace('_', '-')}", type=TRAINING_FLAGS[name], help=text)


def add_run_name(command: argparse.ArgumentParser) -> None:
    """What a new run is called."""
    command.add_argument("--run-name", help="what to call the run")


def add_output(command: argparse.ArgumentParser, formats: Iterable[str], usual: str) -> None:
    """What to write, and where."""
    command.add_argument(
        "--format", default=usual, metavar="|".join(formats), help=f"what to write ({usual})"
    )
    command.add_argument("--output", help="the file to write; without it, stdout")


# --- read -------------------------------------------------------------------------------------


def network_of(options: argparse.Namespace) -> NiNConfig:
    """The network that is named, with the changes that were asked for."""
    network = _named(options.name)
    if options.widths is not None:
        network = network.with_widths(options.widths)
    changes = {
        name: getattr(options, name)
        for name in ("global_pool", "final_relu", "batch_norm", "dropout", "image_size")
        if getattr(options, name) is not None
    }
    return replace(network, **changes)


def training_changes(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of the recipe that were given as flags."""
    given = {name: getattr(options, name, None) for name in TRAINING_FLAGS}
    return {name: value for name, value in given.items() if value is not None}


def _named(name: str) -> NiNConfig:
    """A preset, or what a file (or stdin) holds as JSON."""
    if name != "-" and not name.endswith(".json"):
        return preset(name)
    from ..export import from_json

    try:
        return from_json(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
    except OSError as error:
        raise CommandError(f"The file {name} cannot be read: {error.strerror or error}.") from error


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of whole numbers; 96,256,384 would work"
        ) from None
