"""The command line: `python -m nin_core summary|train|fan|export|runs|data`.

Choices made here:

* With `--json`, stdout carries JSON lines and nothing else; whatever people need besides goes to
  stderr. Without it, stdout is an aligned table or a line an epoch.
* An error is one sentence on stderr and exit code 2. Ctrl-C stops a training run, keeps what it
  has learned, and exits with 130 as a shell expects.
* `train` works in this very process, but its run is in the store like any other: the dashboard
  shows it live and can stop it. `fan` queues its runs and waits for them; Ctrl-C stops all.
* `summary` and `export` (but for ONNX) import neither PyTorch nor the store.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .checks import ConfigError, choice
from .config import PRESETS, NiNConfig, preset
from .datasets import DATASETS
from .recipes import FAN_SEEDS, RECIPES
from .summary import summarize

if TYPE_CHECKING:
    from .recipes import TrainConfig
    from .records import Run
    from .store import RunStore
    from .training import EpochEvent, StepEvent

FORMATS = ("pytorch", "pytest", "json", "onnx")
FAN_SECONDS = 0.5  # from one look at a fan's runs to the next
RUN_FORMATS = ("csv", "json", "tensorboard", "safetensors")


class _Value(NamedTuple):
    """What an action on a run needs besides the run's number."""

    what: str
    example: str
    type: Callable[[str], Any]


VALUES = {
    "rename": _Value("its new name", "'wide, seed 3'", str),
    "continue": _Value("how many epochs more", "2", int),
    "rate": _Value("its learning rate from now on", "0.01", float),
}
EVENT_FIELDS = (
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "examples_per_second",
    "seconds",
)


class CommandError(Exception):
    """What the user reads on stderr, in one sentence."""


# --- summary ----------------------------------------------------------------------------------


def _summary(options: argparse.Namespace) -> int:
    network = _network(options)
    table = summarize(network, options.batch_size)
    same = network == PRESETS.get(options.name)
    name = options.name if same or options.name not in PRESETS else f"{options.name}, changed"
    if options.json:
        _print_json(
            {
                "name": table.name,
                "total_parameters": table.total_parameters,
                "total_macs": table.total_macs,
                "layers": [
                    {
                        "name": layer.name,
                        "kind": layer.kind,
                        "output_shape": list(layer.output_shape),
                        "parameters": layer.parameters,
                        "macs": layer.macs,
                        "receptive_field": layer.receptive_field,
                    }
                    for layer in table.layers
                ],
            }
        )
        return 0
    print(f"{name}: input {_shape(table.input_shape)}, {network.num_classes} classes\n")
    rows = [
        (
            layer.name,
            layer.kind,
            f"{layer.kernel_size}×{layer.kernel_size}" if layer.kernel_size else "",
            str(layer.stride) if layer.kernel_size else "",
            str(layer.padding) if layer.kernel_size else "",
            _shape(layer.output_shape),
            f"{layer.parameters:,}" if layer.parameters else "",
            f"{layer.parameter_share:.1%}" if layer.parameters else "",
            f"{layer.macs:,}" if layer.macs else "",
            f"{layer.mac_share:.1%}" if layer.macs else "",
            f"{layer.receptive_field:,}",
        )
        for layer in table.layers
    ]
    totals = ("total", "", "", "", "", "", f"{table.total_parameters:,}", "")
    totals += (f"{table.total_macs:,}", "", "")
    head = ("layer", "kind", "kernel", "stride", "pad", "output", "parameters", "", "MACs", "")
    _print_table((*head, "field"), rows, right=range(2, 11), last=totals)
    images = "1 image" if options.batch_size == 1 else f"{options.batch_size:,} images"
    print(
        f"\nActivations of {images}: {_bytes(table.total_activation_bytes)}; "
        f"weights: {_bytes(table.parameter_bytes)} (float32)."
    )
    return 0


# --- train ------------------------------------------------------------------------------------


def _plan(options: argparse.Namespace) -> tuple[NiNConfig, TrainConfig, str]:
    """The network, how it is trained and on what, from the flags.

    Raises:
        ConfigError: if they do not go together, or one is none.
    """
    network = _network(options)
    choice(options.recipe, "--recipe", tuple(RECIPES), field="recipe")
    dataset = options.dataset or ("fashion-mnist" if network.in_channels == 1 else "cifar10")

    from .jobs import check_dataset

    check_dataset(network, dataset)
    info = DATASETS[dataset]
    config = RECIPES[options.recipe].configure(
        network, train_size=info.train_size, mirrors=info.mirrors, **_training_changes(options)
    )
    return network, config, dataset


def _train(options: argparse.Namespace) -> int:
    network, config, dataset = _plan(options)

    from .admission import require
    from .jobs import advance, this_worker
    from .reporter import leave_run
    from .store import RunStore, StoreError
    from .worker import work_on

    require(network, config, dataset)
    printer = _Printer(options.json)
    try:
        store = RunStore()
        worker = this_worker()
        run_id = store.create(network, config, dataset, options.run_name, worker=worker)
        attempt = store.claim(run_id, worker)
        if attempt is None:
            raise CommandError(f"Run #{run_id} was stopped before it began.")
        run = store.get(run_id)
        printer.start(run)
        reporter = work_on(store, run_id, attempt, printer.event)
        leave_run(store, run_id, attempt, reporter.trouble)
        run = store.get(run_id)
        advance(store, outlive=True)
    except StoreError as error:
        raise CommandError(str(error)) from error
    printer.end(run)
    if run.state == "failed":
        raise CommandError(run.error or f"Run #{run_id} failed.")
    return 130 if reporter.signals and run.state == "stopped" else 0


def _fan(options: argparse.Namespace) -> int:
    """Train from several seeds, and say how many stall."""
    network, config, dataset = _plan(options)

    from . import fans, jobs
    from .run_export import describe
    from .store import RunStore, StoreError

    fan = None
    try:
        store = RunStore()
        fan = fans.start(store, network, config, dataset, options.seeds, outlive=True)
        said: set[int] = set()
        while len(said) < options.seeds:
            jobs.advance(store, outlive=True)
            members = fans.runs(store, fan)
            if len(members) < options.seeds:
                raise CommandError("A run of the fan was deleted.")
            for run in members:
                if run.id in said or run.active or run.worker is not None:
                    continue
                said.add(run.id)
                if options.json:
                    _print_json(describe(run))
                else:
                    test = "" if run.test_accuracy is None else f", test {run.test_accuracy:.1%}"
                    why = run.error or run.diagnosis or ""
                    print(f"#{run.id} {run.name}: {run.state}{test}. {why}".rstrip(), flush=True)
            time.sleep(FAN_SECONDS)
        stalls = fans.stalled(store, fans.runs(store, fan))
    except StoreError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        if fan is not None:
            fans.stop(store, fan)
        raise
    if not options.json:
        print(f"{len(stalls)} of {options.seeds} stalled.")
    return 0


def _probe(options: argparse.Namespace) -> int:
    """Time the ways to compute a training step here, and have runs of this size use the fastest."""
    network, config, dataset = _plan(options)

    from . import tuning

    found = tuning.probe(network, config, DATASETS[dataset])
    assert found is not None  # nothing stops it but Ctrl-C
    if options.json:
        _print_json(asdict(found))
        return 0
    rows = [[trial.settings.words(), f"{trial.images_per_second:,.0f}"] for trial in found.trials]
    _print_table(["settings", "images/s"], rows, right=[1])
    print(f"Runs of networks of this size get: {found.chosen.words()}.")
    return 0


def _training_changes(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of the recipe that were given as flags."""
    names = ("epochs", "seed", "batch_size", "learning_rate", "subset")
    given = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in given.items() if value is not None}


class _Printer:
    """Shows a run on stdout: JSON lines, or a line an epoch with a moving one in a terminal."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._moving = not as_json and sys.stdout.isatty()
        self._broken = False

    def start(self, run: Run) -> None:
        if not self._json:
            self._say(f"Run #{run.id}: {run.name}, on {run.dataset}. Ctrl-C stops it.")

    def event(self, event: StepEvent | EpochEvent) -> None:
        from .training import EpochEvent  # loaded long since

        epoch = isinstance(event, EpochEvent)
        if self._json:
            fields = {name: getattr(event, name) for name in EVENT_FIELDS}
            self._say(_json({"event": "epoch" if epoch else "step", **fields}))
        elif epoch:
            self._say(
                f"epoch {event.epoch}: loss {event.train_loss:.3f}, "
                f"training accuracy {event.train_accuracy:.1%}, "
                f"test accuracy {event.test_accuracy:.1%}, "
                f"{event.examples_per_second:,.0f} images/s, {event.seconds:.1f} s"
            )
        elif self._moving:
            left = (event.total_steps - event.step) * event.seconds / event.step
            self._say(
                f"step {event.step:,} of {event.total_steps:,}: loss {event.train_loss:.3f}, "
                f"accuracy {event.train_accuracy:.1%}, {event.examples_per_second:,.0f} images/s, "
                f"{left:.0f} s left",
                moving=True,
            )

    def end(self, run: Run) -> None:
        if self._json:
            fields = {name: getattr(run, name) for name in EVENT_FIELDS}
            self._say(_json({"event": "end", **fields, "state": run.state, "run_id": run.id}))
            return
        test = "" if run.test_accuracy is None else f", test accuracy {run.test_accuracy:.1%}"
        self._say(f"{run.state} after {run.step:,} steps and {run.seconds:.1f} s{test}")
        if run.diagnosis:
            self._say(run.diagnosis)

    def _say(self, line: str, *, moving: bool = False) -> None:
        if self._broken:
            return
        clear = "\r\x1b[K" if self._moving else ""
        try:
            print(f"{clear}{line}", end="" if moving else "\n", flush=True)
        except BrokenPipeError:
            # Whoever read this has gone (`| head`): end the run as Ctrl-C would.
            self._broken = True
            sys.stdout = None  # type: ignore[assignment]  # no second complaint at exit
            signal.raise_signal(signal.SIGTERM)


# --- runs -------------------------------------------------------------------------------------


def _runs(options: argparse.Namespace) -> int:
    from .jobs import advance
    from .run_export import describe
    from .store import RunStore, StoreError

    action = options.action_name
    value = VALUES.get(action)
    if action and (options.run is None or (value and options.value is None)):
        example = f"`runs {action} 5{f' {value.example}' if value else ''}`"
        what = f" and {value.what}" if value else ""
        raise CommandError(f"runs {action} needs a run's number{what}, e.g. {example}.")
    try:
        store = RunStore()
        if action is not None:
            return _change_run(store, options)
        advance(store, slots=0)  # whose worker died is said so; nothing is started
        runs = store.list_runs(limit=options.limit)
    except StoreError as error:
        raise CommandError(str(error)) from error
    if options.json:
        for run in runs:
            _print_json(describe(run))
        return 0
    if not runs:
        print("There are no runs yet; `python -m nin_core train nin-slim-128` makes one.")
        return 0
    rows = [
        (
            f"#{run.id}",
            run.name,
            run.dataset,
            run.state,
            f"{run.progress:.0%}" if run.total_steps else "",
            "" if run.train_loss is None else f"{run.train_loss:.3f}",
            "" if run.test_accuracy is None else f"{run.test_accuracy:.1%}",
            f"{run.seconds:.0f} s" if run.seconds else "",
            run.created_at.astimezone().strftime("%Y-%m-%d %H:%M"),
            textwrap.shorten(run.error or run.diagnosis or run.problem or "", 60, placeholder=" …"),
        )
        for run in runs
    ]
    head = ("run", "name", "data", "state", "done", "loss", "test", "time", "made", "")
    _print_table(head, rows, right=(0, 4, 5, 6, 7))
    return 0


def _change_run(store: RunStore, options: argparse.Namespace) -> int:
    """Do with one run what was asked for, and say what it is then."""
    from . import jobs

    action, run_id = options.action_name, options.run
    if action == "delete":
        store.delete(run_id)
        print(f"Run #{run_id} is deleted.")
        return 0
    if action == "export":
        return _export_run(store, options)
    if action == "duplicate":
        twin = jobs.duplicate_run(
            store, run_id, options.run_name, outlive=True, **_training_changes(options)
        )
        print(f"Run #{twin} is {store.get(twin).state}: {store.get(twin).name}.")
        return 0
    if action == "rename":
        store.rename(run_id, options.value)
    elif action == "rate":
        store.change_rate(run_id, options.value)
    elif action == "continue":
        jobs.extend_run(store, run_id, options.value, outlive=True)
    else:
        act = {"pause": jobs.pause_run, "resume": jobs.resume_run, "stop": jobs.stop_run}[action]
        act(store, run_id, outlive=True)
    run = store.get(run_id)
    waits = run.state == "running" and run.desired_state != "running"
    wish = f" and about to be {run.desired_state}" if waits else ""
    if action == "rename":
        wish = f" and called {run.name}"
    elif run.desired_rate is not None:
        wish += f", and goes on with a learning rate of {run.desired_rate:g}"
    print(f"Run #{run_id} is {run.state}{wish}.")
    return 0


def _export_run(store: RunStore, options: argparse.Namespace) -> int:
    """Write a run's curves, or its weights."""
    from . import run_export

    choice(options.format, "--format", RUN_FORMATS, field="format")
    run, rows = store.get(options.run), store.metrics(options.run)
    if options.format in ("tensorboard", "safetensors"):
        if options.output is None:
            events = options.format == "tensorboard"
            name = run_export.events_name(run) if events else "nin.safetensors"
            raise ConfigError(f"{options.format} is no text; --output {name} would work.")
        if options.format == "tensorboard":
            return _write(options.output, run_export.as_tensorboard(run, rows))
        from .weights import plain_weights

        return _write(options.output, plain_weights(_weights(run.id)))
    text = run_export.as_csv(rows) if options.format == "csv" else run_export.as_json(run, rows)
    if options.output is None:
        print(text, end="")
        return 0
    return _write(options.output, text.encode())


# --- data -------------------------------------------------------------------------------------


def _data(options: argparse.Namespace) -> int:
    from .data import DataError, load_dataset

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
    shape = _shape(dataset.train_images.shape[1:])
    print(dataset.source)
    print(
        f"{len(dataset.train_labels):,} training and {len(dataset.test_labels):,} test images, "
        f"{shape}, {len(dataset.class_names)} classes: {', '.join(dataset.class_names)}."
    )
    return 0


# --- export -----------------------------------------------------------------------------------


def _export(options: argparse.Namespace) -> int:
    from . import export

    choice(options.format, "--format", FORMATS, field="format")
    network = _network(options)
    if options.run is not None and options.format != "onnx":
        raise ConfigError("--run is for --format onnx; the other formats hold no weights.")
    if options.format == "onnx":
        if options.output is None:
            raise ConfigError("ONNX is no text; --output nin.onnx would work.")
        weights = None if options.run is None else _weights(options.run)
        return _write(options.output, export.onnx_model(network, weights))
    if options.format == "pytest":
        text = export.pytest_code(network, options.batch_size)
    else:
        text = {"pytorch": export.pytorch_code, "json": export.to_json}[options.format](network)
    if options.output is None:
        print(text, end="")
        return 0
    return _write(options.output, text.encode())


def _weights(run_id: int) -> bytes:
    """The weights of a run."""
    from .store import RunStore, StoreError

    try:
        checkpoint = RunStore(create=False).load_checkpoint(run_id)
    except StoreError as error:
        raise CommandError(str(error)) from error
    if checkpoint is None:
        raise CommandError(f"There is no run #{run_id} with weights.")
    return checkpoint.blob


def _write(name: str, data: bytes) -> int:
    try:
        Path(name).write_bytes(data)
    except OSError as error:
        raise CommandError(
            f"The file {name} cannot be written: {error.strerror or error}."
        ) from error
    return 0


# --- shared -----------------------------------------------------------------------------------


def _network(options: argparse.Namespace) -> NiNConfig:
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


def _named(name: str) -> NiNConfig:
    """A preset, or what a file (or stdin) holds as JSON."""
    if name != "-" and not name.endswith(".json"):
        return preset(name)
    from .export import from_json

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


def _shape(shape: Iterable[int]) -> str:
    return "×".join(f"{side}" for side in shape)


def _bytes(count: int) -> str:
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:,.0f} {units[0]}" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def _print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Iterable[int],
    last: Sequence[str] | None = None,
) -> None:
    """Print aligned columns, those in `right` to the right; `last` stands under a line."""
    every = [head, *rows, *([last] if last else [])]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    to_right = set(right)

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if i in to_right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    print(line(head), rule, *map(line, rows), sep="\n")
    if last:
        print(rule, line(last), sep="\n")


def _json(values: dict[str, Any]) -> str:
    """One line of strict JSON: NaN and infinities are not part of it and become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False)


def _print_json(values: dict[str, Any]) -> None:
    print(_json(values), flush=True)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m nin_core", description="NiN Explorer on the command line.")
    commands = parser.add_subparsers(
        title="commands",
        dest="command",
        required=True,
        metavar="summary|train|fan|probe|export|runs|data",
    )

    def add(name: str, action: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(action=action)
        return command

    def add_network(command: argparse.ArgumentParser) -> None:
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

    def add_json(command: argparse.ArgumentParser) -> None:
        command.add_argument("--json", action="store_true", help="JSON lines on stdout")

    def add_training(command: argparse.ArgumentParser) -> None:
        command.add_argument("--epochs", type=int)
        command.add_argument("--seed", type=int)
        command.add_argument("--batch-size", type=int)
        command.add_argument("--learning-rate", type=float)
        command.add_argument("--subset", type=int, help="number of training images to use")
        command.add_argument("--run-name", help="what to call the run")

    summary = add("summary", _summary, "the layers of a network: shapes, parameters, MACs")
    add_network(summary)
    add_json(summary)
    summary.add_argument("--batch-size", type=int, default=1, help="images, for memory (1)")

    train = add("train", _train, "train a network; the dashboard shows the run, too")
    add_network(train)
    add_json(train)
    train.add_argument("--recipe", default="fast", help=f"{' or '.join(RECIPES)} (fast)")
    train.add_argument("--dataset", help=", ".join(DATASETS))
    add_training(train)

    fan = add("fan", _fan, "train from the seeds 0, 1, … and say how many runs stall")
    add_network(fan)
    add_json(fan)
    fan.add_argument("--recipe", default="fast", help=f"{' or '.join(RECIPES)} (fast)")
    fan.add_argument("--dataset", help=", ".join(DATASETS))
    fan.add_argument("--seeds", type=int, default=FAN_SEEDS, help=f"how many ({FAN_SEEDS})")
    fan.add_argument("--epochs", type=int)
    fan.add_argument("--batch-size", type=int)
    fan.add_argument("--learning-rate", type=float)
    fan.add_argument("--subset", type=int, help="number of training images to use")

    probe = add("probe", _probe, "find out how this computer trains a network fastest")
    add_network(probe)
    add_json(probe)
    probe.add_argument("--recipe", default="fast", help=f"{' or '.join(RECIPES)} (fast)")
    probe.add_argument("--dataset", help=", ".join(DATASETS))
    probe.add_argument("--batch-size", type=int)

    export = add("export", _export, "the network as PyTorch code, its test, JSON or ONNX")
    add_network(export)
    export.add_argument(
        "--format", default="pytorch", metavar="|".join(FORMATS), help="what to write (pytorch)"
    )
    export.add_argument("--output", help="the file to write; without it, stdout")
    export.add_argument(
        "--batch-size", type=int, default=64, help="images, for pytest's bytes (64)"
    )
    export.add_argument("--run", type=int, help="the run whose weights ONNX gets (untrained)")

    runs = add("runs", _runs, "list the runs in the store, newest first, or change one")
    texts = {
        "pause": "free the processor; the run can go on as if it had never been away",
        "resume": "go on with a run that was paused, stopped or interrupted, or that failed",
        "stop": "end a run and measure it",
        "continue": "train a finished run for more epochs",
        "rate": "change the learning rate (of a cycle, its peak) while a run goes",
        "rename": "give a run another name",
        "duplicate": "start a twin of a run, with what is changed here",
        "export": "a run's curves as CSV, JSON or TensorBoard events, or its weights",
        "delete": "delete a run with all that belongs to it",
    }
    actions = runs.add_subparsers(
        title="what to do with one run", dest="action_name", metavar="|".join(texts)
    )
    for name, text in texts.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("run", nargs="?", type=int, metavar="NUMBER", help="the run's number")
        if value := VALUES.get(name):
            action.add_argument(
                "value", nargs="?", type=value.type, metavar="VALUE", help=value.what
            )
    add_training(actions.choices["duplicate"])
    exported = actions.choices["export"]
    exported.add_argument(
        "--format", default="csv", metavar="|".join(RUN_FORMATS), help="what to write (csv)"
    )
    exported.add_argument("--output", help="the file to write; without it, stdout")
    runs.add_argument("--limit", type=int, default=50, help="how many at most (50)")
    add_json(runs)

    data = add("data", _data, "find or fetch a data set, verify it, and say where it is")
    data.add_argument("name", metavar="NAME", help=", ".join(DATASETS))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.action(options)
    except (ConfigError, CommandError) as error:
        text = str(error)
        field = "_" in text.split(" ", 1)[0]  # names of fields stay as they are written
        print(text if field else text[:1].upper() + text[1:], file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stdout = None  # type: ignore[assignment]
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
