"""The command `runs`: the runs in the store, listed, or one of them changed or exported."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..checks import ConfigError, choice
from .arguments import (
    Commands,
    add_command,
    add_json,
    add_output,
    add_run_name,
    add_training,
    training_changes,
)
from .output import CommandError, print_json, print_table, write_file, write_text
from .store import opened_store

if TYPE_CHECKING:
    from ..records import Run
    from ..store import RunStore

FORMATS = ("csv", "json", "tensorboard", "safetensors")
#: What can be done with one run.
ACTIONS = {
    "show": "what a run is, how it stands, why it failed, and its worker's log",
    "pause": "free the processor; the run can go on as if it had never been away",
    "resume": "go on with a run that was paused, stopped or interrupted, or that failed",
    "stop": "end a run and measure it",
    "measure": "measure the weights of a run that has ended, or pauses, on the test set",
    "continue": "train a finished run for more epochs",
    "rate": "change the learning rate (of a cycle, its peak) while a run goes",
    "rename": "give a run another name",
    "duplicate": "start a twin of a run, with what is changed here",
    "export": "a run's curves as CSV, JSON or TensorBoard events, or its weights",
    "delete": "delete a run with all that belongs to it",
}


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


def add_runs(commands: Commands) -> None:
    """`runs`: the list, and under it a command for each of `ACTIONS`."""
    text = "list the runs in the store, newest first, or change one"
    command = add_command(commands, "runs", text)
    command.set_defaults(action=_runs)
    actions = command.add_subparsers(
        title="what to do with one run", dest="action_name", metavar="|".join(ACTIONS)
    )
    for name, text in ACTIONS.items():
        action = add_command(actions, name, text)
        action.add_argument("run", nargs="?", type=int, metavar="NUMBER", help="the run's number")
        if value := VALUES.get(name):
            action.add_argument(
                "value", nargs="?", type=value.type, metavar="VALUE", help=value.what
            )
    add_training(actions.choices["duplicate"])
    add_run_name(actions.choices["duplicate"])
    add_output(actions.choices["export"], FORMATS, "csv")
    add_json(actions.choices["show"], default=argparse.SUPPRESS)  # else it undoes `runs --json`
    command.add_argument("--limit", type=int, default=50, help="how many at most (50)")
    add_json(command)


def _runs(options: argparse.Namespace) -> int:
    from ..jobs import try_advance
    from ..run_export import describe

    if options.action_name is not None:
        _check_action(options)
        with opened_store() as store:
            _change_run(store, options)
        return 0
    with opened_store() as store:
        # Whose worker died is said so; nothing is started.
        if trouble := try_advance(store, slots=0):
            print(trouble, file=sys.stderr)
        runs = store.list_runs(limit=options.limit)
    if options.json:
        for run in runs:
            print_json(describe(run))
    elif runs:
        _print_runs(runs)
    else:
        print("There are no runs yet; `python -m nin_core train nin-slim-128` makes one.")
    return 0


def _print_runs(runs: Sequence[Run]) -> None:
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
    print_table(head, rows, right=(0, 4, 5, 6, 7))


def _check_action(options: argparse.Namespace) -> None:
    """Refuse an action without what it needs, with an example."""
    action = options.action_name
    value = VALUES.get(action)
    if options.run is None or (value and options.value is None):
        example = f"`runs {action} 5{f' {value.example}' if value else ''}`"
        what = f" and {value.what}" if value else ""
        raise CommandError(f"runs {action} needs a run's number{what}, e.g. {example}.")


def _change_run(store: RunStore, options: argparse.Namespace) -> None:
    """Do with one run what was asked for, and say what it is then."""
    from .. import jobs
    from ..records import ACTIVE
    from ..scoring import measure_again

    action, run_id = options.action_name, options.run
    if action == "show":
        _show_run(store, options)
        return
    if action == "delete":
        store.delete(run_id)
        print(f"Run #{run_id} is deleted.")
        return
    if action == "export":
        _export_run(store, options)
        return
    if action == "duplicate":
        twin = jobs.duplicate_run(
            store, run_id, options.run_name, outlive=True, **training_changes(options)
        )
        print(f"Run #{twin} is {store.get(twin).state}: {store.get(twin).name}.")
        return
    if action == "rename":
        store.rename(run_id, options.value)
    elif action == "rate":
        store.change_rate(run_id, options.value)
    elif action == "measure":
        measure_again(store, run_id, wait=True)
    elif action == "continue":
        jobs.extend_run(store, run_id, options.value, outlive=True)
    else:
        before = store.get(run_id)
        ends = {"pause": ACTIVE, "stop": ACTIVE | {"paused"}}
        if before.state not in ends.get(action, {before.state}):
            raise CommandError(f"Run #{run_id} is {before.state}; there is nothing to {action}.")
        if action == "stop" and before.state == "paused" and before.has_checkpoint:
            print("Measuring it on the test set …", file=sys.stderr)
        otherwise = jobs.goes_on_otherwise(store, run_id) if action == "resume" else None
        act = {"pause": jobs.pause_run, "resume": jobs.resume_run, "stop": jobs.stop_run}[action]
        act(store, run_id, outlive=True)
        if otherwise:
            print(otherwise, file=sys.stderr)
    run = store.get(run_id)
    waits = run.state == "running" and run.desired_state != "running"
    wish = f" and about to be {run.desired_state}" if waits else ""
    if action == "measure":
        accuracy = run.evaluated_accuracy
        wish = f", test accuracy {accuracy:.1%}" if accuracy is not None else ", and not measured"
    elif action == "stop" and run.state == "stopped" and run.worker is None:
        if run.has_checkpoint and not run.has_evaluation:
            wish = f", and not measured; `runs measure {run_id}` would do that"
    elif action == "rename":
        wish = f" and called {run.name}"
    elif run.desired_rate is not None:
        wish += f", and goes on with a learning rate of {run.desired_rate:g}"
    print(f"Run #{run_id} is {run.state}{wish}.")


def _show_run(store: RunStore, options: argparse.Namespace) -> None:
    """All that is known of one run but its curves and weights."""
    from .. import jobs
    from ..run_export import describe

    run, log = store.get(options.run), store.log(options.run)
    place, waits = jobs.place_of(store, run) if run.state == "queued" else (None, None)
    if options.json:
        print_json(describe(run) | {"log": log, "place": place and place._asdict()})
        return
    _print_runs([run])
    if waits:
        print(f"{waits[0].upper()}{waits[1:]}.")
    elif place is not None:
        start = f"; it starts in about {place.seconds:.0f} s" if place.seconds else ""
        print(f"Waiting for its turn, {place.ahead} before it{start}.")
    began = run.start and f"Before its first step: {run.start.sentence}"
    for text in (began, run.error, run.diagnosis, run.problem):
        if text:
            print(text)
    if log:
        print("Its worker's log:", textwrap.indent(log.rstrip(), "  "), sep="\n")


def _export_run(store: RunStore, options: argparse.Namespace) -> None:
    """Write a run's curves, or its weights."""
    from .. import run_export

    choice(options.format, "--format", FORMATS, field="format")
    run, rows = store.get(options.run), store.metrics(options.run)
    if options.format in ("tensorboard", "safetensors"):
        if options.output is None:
            events = options.format == "tensorboard"
            name = run_export.events_name(run) if events else "nin.safetensors"
            raise ConfigError(f"{options.format} is no text; --output {name} would work.")
        if options.format == "tensorboard":
            write_file(options.output, run_export.as_tensorboard(run, rows))
            return
        from ..weights import weights_file

        write_file(options.output, weights_file(store, run.id))
        return
    text = run_export.as_csv(rows) if options.format == "csv" else run_export.as_json(run, rows)
    write_text(options.output, text)
