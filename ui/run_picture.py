"""What is to be said of a run while it goes: its state in words, its figures, its chart.

Plain functions of a run as it was read, for the page that draws it (`live_run`) and for the feed
that keeps the page up to date between its reruns (`run_feed`), so that both say the same. None of
them needs a session of Streamlit's. No torch here.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from nin_core import admission, jobs, trouble
from nin_core.datasets import DATASETS
from nin_core.records import RESUMABLE
from ui import numbers, theme
from ui.curves import History
from ui.run_points import channels_of, histories, images_after

if TYPE_CHECKING:
    from nin_core.records import Run
    from nin_core.store import RunStore

SILENT_SECONDS = 5.0  # a worker writes every half second, unless the store cannot be written

_ENDING = {"stopped": "Stopping …", "paused": "Pausing …"}

# As Streamlit's own figures and progress bars look, but of one piece of HTML each, which the feed
# may change: what React has made is React's.
STYLE = """
<style>
.nin-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr));
  gap: .4rem .5rem; line-height: 1.3; }
.nin-figures > div { font-size: 0.8rem; }
.nin-figures > div > span { opacity: .85; }
.nin-figures i { display: inline-block; width: .65rem; height: .65rem; margin-right: .35rem;
  border-radius: 2px; }
.nin-figures b { display: block; font-size: 1.35rem; font-weight: 400;
  font-variant-numeric: tabular-nums; }
.nin-figures small { display: block; font-size: 0.75rem; opacity: .75; min-height: 1.3em; }
/* However long its text is, what stands beside it stays where it is. */
.nin-progress { line-height: 1.5; font-variant-numeric: tabular-nums; contain: inline-size;
  min-width: 16rem; }
.nin-progress > div { height: .5rem; margin-top: .35rem; border-radius: .25rem; overflow: hidden;
  background: color-mix(in srgb, currentColor 12%, transparent); }
.nin-progress i { display: block; height: 100%; border-radius: inherit;
  background: var(--st-primary-color, #3b7dbf); }
</style>
"""


@dataclass(frozen=True)
class Seen:
    """A run as it was read last: its row, its points, its place in the queue, its log.

    `waits`: why it does not start although it is its turn. `trouble`: what keeps the store from
    being written, in a sentence. `otherwise`: why it would not go on to the bit, if it can go on.
    """

    run: Run
    history: History
    place: admission.Place | None = None
    waits: str | None = None
    log: str = ""
    trouble: str | None = None
    otherwise: str | None = None


def is_awaited(run: Run) -> bool:
    """Whether anything is still to come: the run is active, or its worker measures it."""
    return run.active or run.worker is not None


def look(store: RunStore, run_id: int) -> Seen:
    """Read a run; while something of it is to come, settle what died and start what may.

    Raises:
        RunNotFound: if it was deleted.
        StoreError: if the store does not answer.
    """
    run, trouble = store.get(run_id), None
    if is_awaited(run):
        trouble = jobs.try_advance(store)
        run = store.get(run_id)
    place, waits, log, otherwise = None, None, "", None
    if run.state == "queued":
        place, waits = jobs.place_of(store, run, _speed(store))
    elif run.state == "failed":
        log = store.log(run_id)
    if run.state in RESUMABLE and run.has_checkpoint:
        otherwise = jobs.goes_on_otherwise(store, run_id)
    return Seen(run, histories().of(store, run), place, waits, log, trouble, otherwise)


@st.cache_data(ttl=10, show_spinner=False)
def _speed(_store: RunStore) -> float:
    """This computer's speed, by its newest runs; asked rarely, since it hardly changes."""
    return jobs.speed_here(_store)


# --- when the page itself has to be drawn anew ------------------------------------------------


def page_version(run: Run) -> str:
    """Changes when something of a run does that stands elsewhere on the page than in its picture.

    A run that has a worker but no step yet counts as the one it will be in a second: to draw the
    page meanwhile would only hold up its first point.
    """
    if run.active and run.worker is not None and not run.step:
        return "begins"
    rates = run.train.rate_changes if run.train else ()
    told = (
        run.state, bool(run.step), run.worker is None, run.attempt, run.name, run.has_checkpoint,
        run.has_evaluation and not run.active, rates, run.settings,
    )  # fmt: skip
    return digest(told)


def version(seen: Seen, blocks: list[str]) -> str:
    """Changes when the picture has to be drawn by the script: other messages, buttons, parcels.

    Args:
        blocks: names of the parcels that the chart consists of besides what it brings itself.
    """
    run = seen.run
    told = (
        page_version(run), run.desired_state, run.desired_rate, run.problem, run.error,
        run.diagnosis, bad_start(seen), _stuck_since(seen), woke(seen), seen.trouble, blocks,
    )  # fmt: skip
    return digest(told)


def digest(told: Any) -> str:
    """A short text that is another one for other things told."""
    return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()


# --- in words ---------------------------------------------------------------------------------


def progress(seen: Seen) -> str | None:
    """A bar with what the run does, as HTML; None for one that has ended."""
    run = seen.run
    if run.state == "queued" and run.worker is not None:
        text = "Starting a worker process …"
    elif run.state == "queued":
        text = _waiting(seen)
    elif run.state == "running" and not run.step:
        phase = run.phase or "starting"
        text = f"{phase[:1].upper()}{phase[1:]} …"
    elif run.state == "running":
        epochs = run.train.total_epochs if run.train else "?"
        parts = [f"Epoch {run.epoch} of {epochs}", f"step {run.step:,} of {run.total_steps or 0:,}"]
        if run.silent > SILENT_SECONDS:
            parts.append(f"no word from its worker for {run.silent:.0f} s, its points wait")
        else:
            if run.examples_per_second:
                parts.append(f"{run.examples_per_second:,.0f} images/s")
            if run.seconds_left is not None:
                parts.append(f"{numbers.duration(run.seconds_left)} left")
        text = " · ".join(parts)
    else:
        return None
    text = escape(_ENDING.get(run.desired_state, text))
    done = f"{100 * run.progress:.1f}"
    return (
        f"<div class='nin-progress' data-run='{run.id}' role='progressbar' "
        f"aria-label='Progress of the run' aria-valuemin='0' aria-valuemax='100' "
        f"aria-valuenow='{done}' aria-valuetext='{text}'>"
        f"<span>{text}</span><div><i style='width:{done}%'></i></div></div>"
    )


def _waiting(seen: Seen) -> str:
    """What a queued run waits for, and for how long."""
    slots = jobs.slots_here()
    at_once = "one run trains at a time" if slots == 1 else f"{slots} runs train at once"
    ahead = seen.place.ahead if seen.place else 0
    turn = "it is the next" if not ahead else f"{ahead} {'is' if ahead == 1 else 'are'} before it"
    text = f"Waiting for its turn: {at_once}, {turn}"
    if seen.waits:
        return f"Waiting for its turn: {seen.waits}"
    if seen.place is not None and seen.place.seconds:
        text += f"; expected to start in about {numbers.duration(seen.place.seconds)}"
    return text


def bad_start(seen: Seen) -> str | None:
    """What was wrong before a run's first step; None if nothing was, or if it is over.

    Its end is told by its diagnosis, or by why it failed. Before, the latest test says whether what
    was dead has come to life, and the loss whether it learns.
    """
    run, history = seen.run, seen.history
    if run.start is None or run.start.verdict == "ready" or run.network is None:
        return None
    if run.state in ("finished", "failed") or (run.train and run.train.more_epochs):
        return None
    if run.start.verdict == "stalled":
        guessing = math.log(run.network.num_classes)
        learns = run.train_loss is not None and run.train_loss < guessing * (
            1 - trouble.GUESSING_BAND
        )
        return None if learns else run.start.sentence
    if len(history.dead):
        channels = channels_of(run.network)
        of = np.array([channels.get(name, 0) for name in history.dead_layers])
        dead = history.dead[-1]
        if not dead[-1] and (2 * dead <= of).all():
            return None
    return run.start.sentence


def stuck(seen: Seen) -> str | None:
    """Why the run seems to learn nothing, as far as it has come; None if it does learn."""
    run = seen.run
    steps = _plateau(seen)
    if steps is None or run.network is None:
        return None
    classes = run.network.num_classes
    return (
        f"For {steps:,} steps the loss has stayed at ln({classes}) = {math.log(classes):.3f}, what "
        "guessing costs: every image gets nearly the same logits, as when class maps are dead."
        + (" It may still wake up." if run.state == "running" else "")
    )


def woke(seen: Seen) -> str | None:
    """When a run left guessing, if it was there for long; None if not, or if it fell back."""
    run = seen.run
    fell_back = run.state == "failed" or trouble.says_guessing(run.diagnosis or "")
    if run.network is None or fell_back:
        return None
    classes = run.network.num_classes
    history = seen.history
    asleep = trouble.woke(history.step, history.train_loss, classes, history.train_accuracy)
    if asleep is None:
        return None
    since, until = asleep
    first = f"For its first {until:,} steps" if not since else f"From step {since:,} to {until:,}"
    return (
        f"{first} the loss stayed at ln({classes}) = {math.log(classes):.3f}, what guessing costs; "
        "then it woke up, and it has learned since. From other seeds it may never wake: a seed fan "
        "shows how many do."
    )


def _plateau(seen: Seen) -> int | None:
    run, history = seen.run, seen.history
    # What others are told by their end: a diagnosis, or why they failed.
    if run.network is None or run.state not in ("running", "paused", "interrupted", "stopped"):
        return None
    classes = run.network.num_classes
    return trouble.plateau(history.step, history.train_loss, classes, history.train_accuracy)


def _stuck_since(seen: Seen) -> int | None:
    """How long the run has been stuck, so roughly that it is not said anew all the time."""
    steps = _plateau(seen)
    return None if steps is None else round(3 * math.log2(max(steps, 1)))


def figures(run: Run, history: History) -> str | None:
    """Loss and accuracies as they are now, as HTML; None while there are none to come."""
    if not (run.active or len(history.step) or run.test_accuracy is not None):
        return None
    loss, accuracy, images = _latest(run, history)
    data = DATASETS.get(run.dataset)
    note = "not measured yet" if run.active else "not measured"
    if run.test_accuracy is not None:
        examples = run.test_examples or 0
        whole = data is not None and examples >= data.test_size
        note = f"{'all' if whole else 'estimate on'} {examples:,} test images"
    steps = f"{run.steps_done:,} step{'s' * (run.steps_done != 1)}"
    shown = (
        ("Test accuracy", theme.TEST_ACCURACY, _share(run.test_accuracy), note),
        ("Training accuracy", theme.TRAIN_ACCURACY, _share(accuracy), images),
        ("Training loss", theme.TRAIN_LOSS, "–" if loss is None else f"{loss:.3f}", images),
        ("Training time", "", numbers.duration(run.seconds), steps),
    )
    swatch = "<i style='background:{}'></i>"
    body = "".join(
        f"<div role='listitem'><span>{color and swatch.format(color)}{label}</span>"
        f"<b>{value}</b><small>{escape(note)}</small></div>"
        for label, color, value, note in shown
    )
    return (
        f"<div class='nin-figures' data-run='{run.id}' role='list' aria-label='Latest figures'>"
        f"{body}</div>"
    )


def _latest(run: Run, history: History) -> tuple[float | None, float | None, str]:
    """Loss and accuracy at the end of the curves, and over how many images they are means."""
    if not len(history.step):
        return None, None, ""
    loss, accuracy = float(history.train_loss[-1]), float(history.train_accuracy[-1])
    before = history.step[-2] if len(history.step) > 1 else 0
    count = images_after(run, history.step[-1]) - images_after(run, before)
    images = f"last {count:,.0f} images" if math.isfinite(count) else ""
    return (
        loss if math.isfinite(loss) else None,
        accuracy if math.isfinite(accuracy) else None,
        images,
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
