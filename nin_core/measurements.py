"""Measurements in processes of their own: started, followed, cancelled and remembered.

Choices made here:

* One at a time for each `Measurements` (a server has one): two that share the cores measure each
  other. Results are kept by request, so whoever asks for the same thing gets it at once.
* Nothing is left behind. The process ends by itself when its time is up or this process is gone
  (`nin_core.measure`), and is ended from here when nobody has asked after it for a while, as when
  the page that wanted it was closed.
* No torch here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from typing import Literal

from .checks import ConfigError
from .machine import PROJECT
from .measure import MeasureRequest, MeasureResult, refusal

State = Literal["running", "done", "failed", "cancelled"]

MAX_KEPT = 32  # results
UNWATCHED_SECONDS = 30.0  # without anybody asking, the process is ended
GRACE_SECONDS = 15.0  # after its time limit it should have ended by itself


class Measurement:
    """One measuring process and what it has said so far. Thread-safe.

    Attributes:
        request: what is measured.
        state: "running", then "done", "failed" or "cancelled".
        stage, done: what it is doing, in words, and how much of all is done (0 to 1).
        result: once it is done.
        problem: why it failed, in one sentence.
    """

    def __init__(self, request: MeasureRequest) -> None:
        """Start the process.

        Raises:
            ConfigError: if it cannot be started, with the system's reason.
        """
        self.request = request
        self.state: State = "running"
        self.stage, self.done = "Starting", 0.0
        self.result: MeasureResult | None = None
        self.problem = ""
        self._seen = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nin_core.measure", json.dumps(request.to_dict())],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except OSError as error:
            raise ConfigError(
                f"no process could be started ({error.strerror or error})."
            ) from error
        for work in (self._read, self._watch):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def look(self) -> State:
        """The state; a measurement that nobody looks at is ended."""
        self._seen = time.monotonic()
        return self.state

    def cancel(self) -> None:
        """End the process, whatever it is doing; nothing if it has ended."""
        if self.state == "running":
            self.state = "cancelled"
            self._process.kill()

    def wait(self, seconds: float) -> State:
        """Look at it until it has ended, or for so many seconds."""
        deadline = time.monotonic() + seconds
        while self.look() == "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.state

    def _read(self) -> None:
        """Follow what the process prints to its end."""
        last: deque[str] = deque(maxlen=1)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                said = json.loads(line)
                event = said.pop("event")
            except (ValueError, KeyError, AttributeError):
                last.append(line.strip())
                continue
            if event == "progress":
                self.stage, self.done = said["stage"], said["done"]
            elif event == "result":
                self.result = MeasureResult.from_dict(said)
            elif event == "error":
                self.problem = said["message"]
        code = self._process.wait()
        if self.state == "cancelled":
            return
        if self.result is not None:
            self.state = "done"
            return
        if not self.problem:
            why = "was killed, perhaps because memory ran out" if code < 0 else "ended early"
            self.problem = f"The measuring process {why}. {last[0][:200] if last else ''}".strip()
        self.state = "failed"

    def _watch(self) -> None:
        deadline = time.monotonic() + self.request.time_limit + GRACE_SECONDS
        while self._process.poll() is None:
            now = time.monotonic()
            if now - self._seen > UNWATCHED_SECONDS or now > deadline:
                self.cancel()
            time.sleep(0.25)


class Measurements:
    """All measurements of a server: at most one runs, the last ones are kept. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[MeasureRequest, Measurement] = OrderedDict()

    def find(self, request: MeasureRequest) -> Measurement | None:
        """The latest measurement of this request, running or ended; None if there is none."""
        with self._lock:
            return self._kept.get(request)

    def running(self) -> Measurement | None:
        """The one that runs, if one does."""
        with self._lock:
            return self._running()

    def start(self, request: MeasureRequest) -> Measurement:
        """Start measuring, or join in if this very request is being measured.

        Raises:
            ConfigError: if it does not fit into memory, something else is being measured, or no
                process can be started.
        """
        with self._lock:
            current = self._running()
            if current is not None and current.request == request:
                return current
            if current is not None:
                raise ConfigError(
                    "another measurement is running on this computer, and two would measure each "
                    f"other; it ends within {current.request.time_limit} seconds."
                )
            refused = refusal(request)
            if refused is not None:
                raise refused
            self._kept.pop(request, None)
            measurement = self._kept[request] = Measurement(request)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            return measurement

    def _running(self) -> Measurement | None:
        return next((m for m in self._kept.values() if m.state == "running"), None)
