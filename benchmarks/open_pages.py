"""How much open pages slow a training: none, one and ten on the run's page, in turn.

    python -m benchmarks.open_pages [--seconds 15] [--rounds 3]

One run of nin-slim-128 trains on Fashion-MNIST under the real server. Pages are open *here*, in
tabs of a Chromium that takes its share of the same cores, as on a laptop, or *elsewhere*, as in a
class: then `benchmarks.visitors` asks for all that their browsers would. The speed over each
stretch is taken from the steps that the store has been told of, from one event to another.

Targets: at most 3 % slower with one page open, 10 % with ten; what it costs to load them is not
counted (a browser is busy with a new page for half a minute). Each stretch is compared with the
stretches without a page around it, since a computer's speed changes by itself. Run it alone. Where
it changes by more than the pages take, the second figure says more: the share of all processors
that went to anything but the training (Linux), less what went there with no page open.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import Browser, sync_playwright

from nin_core import PRESETS, RECIPES
from nin_core.store import RunStore
from tests.e2e.harness import Dashboard, launch_chromium, open_tab
from tests.prerequisites import find_chromium

TARGETS = {1: 0.03, 10: 0.10}
PLACES = ("here", "elsewhere")
SETTLING_SECONDS = 30.0  # in which a page does what it does once, and finds its pace
LOADING_SECONDS = 180  # for a page, behind nine others and a training on the same cores
NETWORK = PRESETS["nin-slim-128"]


def processors() -> tuple[float, float]:
    """Clock ticks that all processors have had so far, and those in which they worked."""
    with Path("/proc/stat").open() as file:
        user, nice, system, idle, waiting, *others = map(float, file.readline().split()[1:9])
    busy = user + nice + system + sum(others[:2])
    return busy + idle + waiting + others[2], busy


def ticks_of(pid: int | None) -> float:
    """Clock ticks in which the threads of a process worked so far."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return float(values[11]) + float(values[12])


def images_per_second(store: RunStore, run_id: int, seconds: float) -> float:
    """The run's speed over about so many seconds, from one event to another."""
    begun = _next_event(store, run_id)
    deadline = begun[0] + seconds
    while True:
        ended = _next_event(store, run_id)
        if ended[0] >= deadline:
            return (ended[1] - begun[1]) / (ended[0] - begun[0])


def _next_event(store: RunStore, run_id: int) -> tuple[float, int]:
    """Seconds of training and images so far, when the next event has come."""
    known = store.get(run_id)
    assert known.train is not None
    while True:
        run = store.get(run_id)
        assert run.state in ("queued", "running"), f"the run is {run.state}"
        if run.step > known.step:
            return run.seconds, run.step * known.train.batch_size
        time.sleep(0.05)


@contextmanager
def _here(browser: Browser, server: Dashboard, path: str, count: int) -> Iterator[None]:
    """So many tabs of a browser on this computer."""
    pages = [open_tab(browser) for _ in range(count)]
    for page in pages:
        page.goto(server.url + path)
        page.locator(".js-plotly-plot").first.wait_for(timeout=LOADING_SECONDS * 1000)
    yield
    for page in pages:
        page.context.close()


@contextmanager
def _elsewhere(server: Dashboard, path: str, count: int) -> Iterator[None]:
    """So many pages without their browsers."""
    url = urlsplit(server.url)._replace(netloc=f"{_own_address()}:{urlsplit(server.url).port}")
    visitors = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.visitors", url.geturl() + path, "--count", str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert visitors.stdout is not None
        assert visitors.stdout.readline(), "the visitors found no page"
        yield
        assert visitors.poll() is None, "the visitors' page broke"
    finally:
        visitors.kill()
        visitors.wait()


def _own_address() -> str:
    """An address of this computer by which the server takes visitors for other computers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; chooses the way out
            return str(probe.getsockname()[0])
        except OSError:  # not connected to anything
            return "127.0.0.1"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of a stretch (15)")
    parser.add_argument("--rounds", type=int, default=3, help="of all of them (3)")
    args = parser.parse_args()
    # However it is ended, the server ends with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chromium = find_chromium()
    found: dict[tuple[str, int], list[Stretch]] = {}
    with (
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory() as folder,
        Dashboard(Path(folder), {"STREAMLIT_SERVER_ADDRESS": "0.0.0.0"}) as server,
    ):
        browser = launch_chromium(playwright, chromium)
        store = RunStore(server.store_url)
        config = RECIPES["fast"].configure(NETWORK, epochs=200)
        run_id = store.create(NETWORK, config, "fashion-mnist")
        path = f"/training?run={run_id}"
        with _here(browser, server, path, 1):
            pass  # the visit starts the run
        before = _measured(store, run_id, args.seconds, "none open")
        for _ in range(args.rounds):
            for place in PLACES:
                for count in TARGETS:
                    opened = (
                        _here(browser, server, path, count)
                        if place == "here"
                        else _elsewhere(server, path, count)
                    )
                    with opened:
                        time.sleep(SETTLING_SECONDS)
                        during = _measured(store, run_id, args.seconds, f"{count} open {place}")
                    after = _measured(store, run_id, args.seconds, "none open")
                    around = (before.speed + after.speed) / 2, (before.taken + after.taken) / 2
                    compared = Stretch(1 - during.speed / around[0], during.taken - around[1])
                    found.setdefault((place, count), []).append(compared)
                    before = after
        browser.close()
    for (place, count), stretches in found.items():
        print(
            f"{count} open {place}: {median(one.speed for one in stretches):.1%} slower, of "
            f"{args.rounds} {', '.join(f'{one.speed:.1%}' for one in stretches)} (target: at most "
            f"{TARGETS[count]:.0%}); {median(one.taken for one in stretches):.1%} of the processors"
        )


class Stretch(NamedTuple):
    """Images a second, and the share of the processors that went to anything but the training."""

    speed: float
    taken: float


def _measured(store: RunStore, run_id: int, seconds: float, what: str) -> Stretch:
    worker = store.get(run_id).worker_pid
    there, busy, trained = (*processors(), ticks_of(worker))
    speed = images_per_second(store, run_id, seconds)
    later, busy_later, trained_later = (*processors(), ticks_of(worker))
    taken = (busy_later - busy - (trained_later - trained)) / (later - there)
    print(f"{what}: {speed:,.0f} images/s, {taken:.1%} taken by others", flush=True)
    return Stretch(speed, taken)


if __name__ == "__main__":
    main()
