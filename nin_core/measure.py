"""The process that measures a training step for real: `python -m nin_core.measure REQUEST`.

REQUEST is one JSON object, `MeasureRequest.to_dict()`, as the argument or on stdin; `network` may
be a preset's name. It prints one JSON object a line: `progress` (stage, done from 0 to 1), then
`result` or `error`. It needs no page, no run and no data: images and labels are random.

Choices made here:

* The step is PyTorch's usual one: float32, channels_last, zero_grad, forward, cross-entropy,
  backward, update.
* Saved bytes: `saved_tensors_hooks` around the forward pass, each storage once, parameters and
  buffers left out.
* Peak memory: the most this process occupied during a step above what it occupies with the network
  gone again, so PyTorch and its compiled kernels are not in it. Linux counts it (VmHWM, reset
  before each step); where it cannot be reset the size is sampled. Meanwhile the C library hands
  freed blocks back at once, so that what it keeps for later does not count either.
* Times: medians over several steps, after others to warm up. Those of the step are taken without
  anything attached to it; those of the layers in further steps, between a layer's hooks forward
  and between the moments at which the gradients of its output and input are ready backward.
  Nothing is run by itself, so a layer meets the caches and the memory that it meets in training.
* A guest: lowest priority that still runs, a time limit, a limit on its memory, refused before
  PyTorch is loaded when the prediction does not fit, and gone when its parent is.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import TYPE_CHECKING, Any, NoReturn, Self

from . import allocator, garbage
from .checks import ConfigError, choice, record, whole
from .config import NiNConfig, preset
from .ledger import OPTIMIZERS, OptimizerName, training_ledger
from .machine import Machine, available_cores, measured_machine, memory
from .process_memory import peak, reset_peak, resident, status
from .summary import MAX_BATCH_SIZE, NetworkSummary, summarize

if TYPE_CHECKING:
    import torch
    from torch import nn

NICENESS = 10
TIME_LIMIT = 120  # seconds
MAX_TIME_LIMIT = 3600
PROCESS_BYTES = 2**30  # PyTorch with CUDA support and its kernels: 0.7 GiB, measured, and room
SLACK = 2  # times the prediction that tensors may take before the system refuses them
WATCH_SECONDS = 0.5
TIMED_SECONDS = 10.0  # the timed steps take about so long
MIN_STEPS, MAX_STEPS = 3, 20
MEMORY_STEPS = 3
SAMPLE_SECONDS = 0.002

REFUSED, FAILED, LATE, ORPHANED = 2, 1, 3, 4  # exit codes


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """What is to be measured; hashable, so that it names its result.

    Attributes:
        network: any network.
        batch_size: images in a step.
        optimizer: key of `ledger.OPTIMIZERS`.
        threads: threads that PyTorch uses, at most the cores there are.
        time_limit: seconds after which the process ends itself.

    Raises:
        ConfigError: when made, for a value out of range.
    """

    network: NiNConfig
    batch_size: int
    optimizer: OptimizerName = "momentum"
    threads: int = 1
    time_limit: int = TIME_LIMIT

    def __post_init__(self) -> None:
        whole(self.batch_size, "batch_size", 1, MAX_BATCH_SIZE, field="batch_size")
        choice(self.optimizer, "optimizer", tuple(OPTIMIZERS), field="optimizer")
        whole(self.threads, "threads", 1, available_cores(), field="threads")
        whole(self.time_limit, "time_limit", 1, MAX_TIME_LIMIT, field="time_limit")
        if self.batch_size == 1 and self.network.batch_norm:
            raise ConfigError(
                "batch norm cannot train on one image; a batch of 2 would work.",
                field="batch_size",
                suggestion=2,
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Read what `to_dict` (or its JSON) gives; `network` may be a preset's name.

        Raises:
            ConfigError: for unknown or missing fields and for values out of range.
        """
        values = record(cls, data, "a measurement")
        missing = [f.name for f in fields(cls)[:2] if f.name not in values]
        if missing:
            raise ConfigError(f"a measurement needs {', '.join(missing)}.", field=missing[0])
        network = values["network"]
        values["network"] = (
            preset(network) if isinstance(network, str) else NiNConfig.from_dict(network)
        )
        return cls(**values)


def refusal(request: MeasureRequest, available: int | None = None) -> ConfigError | None:
    """Why this measurement cannot be: it needs more memory than is free. None if it fits.

    Args:
        available: free bytes; by default what the system says.
    """
    if available is None:
        found = memory()
        if found is None:
            return None
        available = found.available
    ledger = training_ledger(summarize(request.network), request.optimizer)
    needed = ledger.total(request.batch_size) + PROCESS_BYTES
    if needed <= available:
        return None
    fits = ledger.largest_batch(available - PROCESS_BYTES)
    fits -= fits == 1 and request.network.batch_norm
    advice = (
        f"a batch of {fits:,} would fit" if fits else "narrower blocks or a smaller image would"
    )
    return ConfigError(
        f"the step needs {_gib(needed)} with PyTorch itself, but only {_gib(available)} of memory "
        f"are free; {advice}.",
        field="batch_size",
        suggestion=fits or None,
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


# --- results ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """One layer's median seconds in a step."""

    name: str
    forward: float
    backward: float


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """What was measured.

    Attributes:
        saved_bytes: what autograd kept of the network's forward pass, the images included.
        peak_bytes: most that a training step occupied, see the module.
        peak_method: how that was found out, in words.
        inference_bytes: most that a forward pass without autograd occupied.
        forward, backward, update: median seconds; the loss counts with the forward pass.
        step: median seconds of the whole step.
        timed_steps, warmup_steps: how many were taken for that, and how many before.
        layers: every layer in the order of the forward pass.
        hooked_step: median seconds of the steps in which the layers were timed.
        threads: that PyTorch used.
        load: processes that wanted to run when it began, this one not included; None if unknown.
        machine: the peaks of this computer with so many threads.
    """

    saved_bytes: int
    peak_bytes: int
    peak_method: str
    inference_bytes: int
    forward: float
    backward: float
    update: float
    step: float
    timed_steps: int
    warmup_steps: int
    layers: tuple[LayerTimes, ...]
    hooked_step: float
    threads: int
    load: float | None
    machine: Machine

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `asdict` (or its JSON) gives."""
        layers = tuple(LayerTimes(**layer) for layer in data["layers"])
        return cls(**(data | {"layers": layers, "machine": Machine(**data["machine"])}))


# --- the measurement --------------------------------------------------------------------------

Report = Callable[[str, float], None]


def measure(request: MeasureRequest, report: Report = lambda stage, done: None) -> MeasureResult:
    """Measure a training step in this process. Imports torch, sets its threads, takes a while.

    Args:
        report: is told the stage in words and how much is done, 0 to 1.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    report("Loading PyTorch", 0.0)
    import torch

    torch.set_num_threads(request.threads)
    torch.manual_seed(0)
    report("Measuring this computer's peaks", 0.1)
    machine = measured_machine(request.threads)
    report("Warming up", 0.2)
    with allocator.freed_at_once():
        # The first steps compile kernels; those stay, and belong to the base.
        step = _Step(request)
        step.take()
        step.take()
        del step
        base = _settled()
        step = _Step(request)
        step.take()
        report("Memory of a step", 0.35)
        peaks = []
        for _ in range(MEMORY_STEPS):
            with _Peak() as peak:
                step.take()
            peaks.append(peak.bytes - base)
        saved = step.saved_bytes()
        step.forget()
        with _Peak() as inference:
            step.infer()
        inference_bytes = inference.bytes - base
        state = OPTIMIZERS[request.optimizer].slots * step.parameter_bytes
    report("Time of a step", 0.5)
    began = time.perf_counter()
    step.take()
    once = time.perf_counter() - began
    count = min(max(int(TIMED_SECONDS / 2 / max(once, 1e-6)), MIN_STEPS), MAX_STEPS)
    parts = []
    for number in range(count):
        parts.append(step.take())
        report("Time of a step", 0.5 + 0.2 * (number + 1) / count)
    with step.clocks() as laps:
        for number in range(count):
            step.take()
            report("Time of each layer", 0.7 + 0.3 * (number + 1) / count)
    return MeasureResult(
        saved_bytes=saved,
        peak_bytes=max(int(median(peaks)), 0),
        peak_method=peak.method,
        # The optimizer's state is there in this process, but not where a network only answers.
        inference_bytes=max(inference_bytes - state, 0),
        forward=median(p[0] for p in parts),
        backward=median(p[1] for p in parts),
        update=median(p[2] for p in parts),
        step=median(sum(p) for p in parts),
        timed_steps=count,
        warmup_steps=MEMORY_STEPS + 4,
        layers=tuple(
            LayerTimes(name, median(laps.forward[name]), median(laps.backward[name]))
            for name in step.names
        ),
        hooked_step=median(laps.steps),
        threads=torch.get_num_threads(),
        load=load,
        machine=machine,
    )


class _Laps:
    """Seconds of every layer in every hooked step."""

    def __init__(self, names: list[str]) -> None:
        self.forward: dict[str, list[float]] = {name: [] for name in names}
        self.backward: dict[str, list[float]] = {name: [] for name in names}
        self.steps: list[float] = []
        #: (layer, moment at which the gradient of its output was ready), last layer first
        self.ready: list[tuple[str, float]] = []

    def end_step(self, seconds: float, ended: float) -> None:
        """Turn the moments of one backward pass into seconds a layer."""
        self.steps.append(seconds)
        moments = [moment for _, moment in self.ready[1:]] + [ended]
        found = {
            name: after - before for (name, before), after in zip(self.ready, moments, strict=True)
        }
        for name, laps in self.backward.items():
            laps.append(found.get(name, 0.0))  # none: a layer before any weights
        self.ready.clear()


class _Step:
    """A network with an optimizer, images and labels, and its training step."""

    def __init__(self, request: MeasureRequest) -> None:
        import torch

        from .model import build_nin, memory_layout

        config = request.network
        layout = memory_layout(config)
        self._model = build_nin(config).to(memory_format=layout).train()
        self._optimizer = _optimizer(request.optimizer, self._model)
        shape = (request.batch_size, config.in_channels, config.image_size, config.image_size)
        self._images = torch.rand(shape).contiguous(memory_format=layout)
        self._labels = torch.randint(config.num_classes, (request.batch_size,))
        self._leaves = {
            name: module
            for name, module in self._model.named_modules()
            if not any(module.children())
        }
        self.names = list(self._leaves)
        self.parameter_bytes = sum(p.nbytes for p in self._model.parameters())
        self._laps: _Laps | None = None

    def take(self) -> tuple[float, float, float]:
        """Train on the batch once; returns the seconds of forward, backward and update."""
        from torch.nn import functional

        began = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self._model(self._images), self._labels)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        self._optimizer.step()
        ended = time.perf_counter()
        if self._laps is not None:
            self._laps.end_step(ended - began, backward)
        return forward - began, backward - forward, ended - backward

    def forget(self) -> None:
        """Free the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def infer(self) -> None:
        """One forward pass without autograd, dropout off."""
        import torch

        self._model.eval()
        with torch.inference_mode():
            self._model(self._images)
        self._model.train()

    def saved_bytes(self) -> int:
        """Bytes that autograd keeps of a forward pass, each storage once, weights left out."""
        import torch

        own = {
            tensor.untyped_storage().data_ptr()
            for tensor in (*self._model.parameters(), *self._model.buffers())
        }
        kept: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> None:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own and storage.nbytes():
                kept[storage.data_ptr()] = storage  # held, so that no address is used twice
            # Nothing is handed back, since no backward pass follows: a tensor would hold the
            # graph that holds it.

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
            self._model(self._images)
        return sum(storage.nbytes() for storage in kept.values())

    @contextmanager
    def clocks(self) -> Iterator[_Laps]:
        """Time every layer of the steps taken inside."""
        laps = self._laps = _Laps(self.names)
        hooks = [
            hook for name, leaf in self._leaves.items() for hook in _clock_hooks(name, leaf, laps)
        ]
        try:
            yield laps
        finally:
            self._laps = None
            for hook in hooks:
                hook.remove()


def _clock_hooks(name: str, leaf: nn.Module, laps: _Laps) -> list[Any]:
    began = 0.0

    def before(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(_: nn.Module, __: object, output: torch.Tensor) -> None:
        laps.forward[name].append(time.perf_counter() - began)
        if output.requires_grad:
            # The layer's backward begins when the gradient of its output is complete.
            output.register_hook(lambda _: laps.ready.append((name, time.perf_counter())))

    return [leaf.register_forward_pre_hook(before), leaf.register_forward_hook(after)]


def _optimizer(name: OptimizerName, model: nn.Module) -> torch.optim.Optimizer:
    import torch

    # Rates that change no figure and cannot blow up: what is trained here is noise.
    match name:
        case "adam":
            return torch.optim.Adam(model.parameters(), lr=1e-5, foreach=True)
        case "adamw":
            return torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True)
        case "sgd" | "momentum":
            momentum = 0.9 if name == "momentum" else 0.0
            return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=momentum, foreach=True)


# --- the memory of this process ---------------------------------------------------------------


class _Peak:
    """The most this process occupied inside the `with`, in bytes; `method` says how it is known."""

    def __init__(self) -> None:
        self.bytes = 0
        self.method = "the system's high-water mark, reset before each step"
        self._sampler: threading.Thread | None = None
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        if not reset_peak():
            self.method = f"sampled every {SAMPLE_SECONDS * 1000:.0f} ms"
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampler is None:
            self.bytes = peak()
            return
        self._stop.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, resident())


def _settled() -> int:
    """Bytes this process occupies once all that is garbage is given back."""
    gc.collect()
    allocator.give_back()
    return resident()


# --- the process ------------------------------------------------------------------------------

_printing = threading.Lock()


def _print(event: str, **values: Any) -> None:
    with _printing:
        print(json.dumps({"event": event, **values}), flush=True)


def _end(code: int, message: str) -> NoReturn:
    _print("error", message=message)
    os._exit(code)  # whatever the other threads are in


def _watch(parent: int, request: MeasureRequest) -> None:
    """End this process when its time is up or its parent is gone."""
    deadline = time.monotonic() + request.time_limit
    while True:
        time.sleep(WATCH_SECONDS)
        if os.getppid() != parent:
            os._exit(ORPHANED)
        if time.monotonic() > deadline:
            smaller = max(request.batch_size // 4, 1 + request.network.batch_norm)
            _end(
                LATE,
                f"It was not done after {request.time_limit} seconds and was ended; a batch of "
                f"{smaller:,} takes a quarter of the time.",
            )


def _limit_memory(request: MeasureRequest, summary: NetworkSummary) -> None:
    """Have the system refuse this process more than a multiple of what it should need."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        needed = training_ledger(summary, request.optimizer).total(request.batch_size)
        limit = status("VmData") + SLACK * needed + PROCESS_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main(arguments: list[str]) -> int:
    """Measure what the argument, or stdin, asks for; returns the exit code."""
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        os.nice(NICENESS)
    text = arguments[0] if arguments else sys.stdin.read()
    try:
        request = MeasureRequest.from_dict(json.loads(text))
        refused = refusal(request)
        if refused is not None:
            raise refused
    except ValueError as error:  # a ConfigError, or no JSON
        said = str(error) if isinstance(error, ConfigError) else f"the request is no JSON: {error}"
        _print("error", message=said, suggestion=_plain(getattr(error, "suggestion", None)))
        return REFUSED
    threading.Thread(target=_watch, args=(parent, request), daemon=True).start()
    import torch  # noqa: F401  # its own memory is not part of the limit

    _limit_memory(request, summarize(request.network))
    try:
        result = measure(request, lambda stage, done: _print("progress", stage=stage, done=done))
    except (MemoryError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no memory"
        _print("error", message=f"The step could not be run: {first[:300]}")
        return FAILED
    _print("result", **asdict(result))
    return 0


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str) else None


if __name__ == "__main__":
    garbage.exit_quickly()
    sys.exit(main(sys.argv[1:]))
