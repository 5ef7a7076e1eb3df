"""Training as a plain generator of events: `fit` knows nothing of processes, stores or screens.

Choices made here:

* A step does arithmetic and little else. Images stay uint8 until they are in a batch (`batches`)
  and become what the network takes on the device (`inputs`); weights and batches are channels_last;
  loss and accuracy add up on the device and are read only when an event is due.
* Events come after a fixed number of steps, never by the clock, so that a run repeats exactly: the
  same seed, threads and machine give the same events, but for seconds and images per second.
* float32 in channels_last, unless `tuning` has found something faster on this computer. Test
  figures are always of float32.
* Test figures are those of `diagnosis.evaluate`, in eval mode on images as they are. Training loss
  and accuracy are those of the batches as they were trained on, as in the tutorial: with dropout,
  and mirrored or moved where the recipe says so (see `augmentation`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from . import allocator
from .batches import Batches
from .checks import ConfigError
from .config import NiNConfig
from .data import Dataset
from .diagnosis import Evaluation, evaluate
from .estimate import event_interval, start_images
from .events import EpochEvent, StepEvent
from .initialization import initialize_unit_variance, initialize_xavier
from .inputs import Inputs
from .lanes import Lanes
from .model import build_nin
from .optimization import build_optimizer, rate_of_step
from .parts import Parts
from .recipes import TrainConfig, check_batches
from .training_state import (
    Totals,
    TrainingState,
    copied,
    optimizer_tensors,
    random_states,
    restore_optimizer,
    restore_random_states,
)
from .trouble import DIVERGED, LOWER_RATE, fast_or
from .tuning import Settings
from .vitals import Norms, watched

UPDATE_SECONDS = 5.0  # more than any optimizer takes to change the weights
INTERIM_TESTS = 8  # an epoch
INTERIM_IMAGES = 1000  # at most; fewer if they would cost more than 5 % of the training


class DivergedError(RuntimeError):
    """The loss is no longer a finite number: one sentence that says when and what to change."""


def choose_device() -> torch.device:
    """The device to train on: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    network: NiNConfig,
    device: torch.device | str | None = None,
    should_stop: Callable[[], bool] | None = None,
    initialize: bool = True,
    settings: Settings | None = None,
) -> Iterator[StepEvent | EpochEvent]:
    """Train `model` in place and yield events.

    A `StepEvent` comes after the first step, then every `estimate.event_interval` steps and at the
    end of an epoch, followed there by an `EpochEvent`. PyTorch's global random generator is seeded.

    Args:
        model: as `build_nin(network)` makes it; moved to `device`.
        dataset: uint8 images; its labels must be below `network.num_classes`.
        device: default `choose_device()`.
        should_stop: asked between steps and test batches; once it is true the generator ends,
            without an event for the unfinished interval.
        initialize: set the weights as the configuration says; False keeps those of `model`.
        settings: how the steps are computed, as for `Training`; default `tuning.Settings()`.

    Raises:
        ConfigError: if data set, network and configuration do not go together.
        DivergedError: when the loss is not finite any more.
    """
    training = Training(
        model,
        dataset,
        config,
        network=network,
        device=device,
        should_stop=should_stop,
        settings=settings,
    )
    yield from training.events(initialize=initialize)


def starting_model(dataset: Dataset, config: TrainConfig, network: NiNConfig) -> nn.Module:
    """The network as a run of this configuration has it before its first step, on the CPU.

    In the mode in which it is trained. PyTorch's global random generator is seeded.

    Raises:
        ConfigError: if data set, network and configuration do not go together.
    """
    model = build_nin(network)
    training = Training(model, dataset, config, network=network, device="cpu")
    training.prepare()
    return model


# --- one run -----------------------------------------------------------------------------------


class Stopped(BaseException):
    """Raised in the training loop when its state was taken for good without it. Not an error."""


class Training:
    """One training of one model: its events, and its state, which another thread may take.

    A step changes weights, optimizer, sums and counters under one lock; whoever takes the state
    gets it as it was between two steps, however long the next one takes.

    Args:
        model, dataset, config, network, device, should_stop: as for `fit`.
        state: go on from here; every event that follows is then what it would have been, to the
            bit, on the same machine with the same number of threads.
        on_event: called with every event before it is yielded; a state that is taken before knows
            nothing of it, one that is taken after does not give it again.
        on_ready: called with `model` as it is before the first step of all, and what makes its
            inputs; not if the training goes on from a state.
        on_update: called before this object changes the weights for the first time.
        on_rate: called with a step and a rate that was changed after it (see `change_rate`),
            before the next step's event.
        on_threads: called with the new `settings` when threads have changed (see
            `change_threads`), before the next step's event.
        settings: how the steps are computed; PyTorch is to have `settings.torch_threads` of the
            last step of `state` when it is made. A state goes on to the bit only with the settings
            that it came about with.

    Attributes:
        epoch, step, total_steps: as in the events.
        settings: those given, with the changes of threads that came since.
        tested: the pass over the whole test set at the end of the last epoch that ended here.

    Raises:
        ConfigError: if data set, network and configuration do not go together, or `state` is not
            one of this network.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        config: TrainConfig,
        *,
        network: NiNConfig,
        device: torch.device | str | None = None,
        should_stop: Callable[[], bool] | None = None,
        state: TrainingState | None = None,
        on_event: Callable[[StepEvent | EpochEvent], None] | None = None,
        on_ready: Callable[[nn.Module, Inputs], None] | None = None,
        on_update: Callable[[], None] | None = None,
        on_rate: Callable[[int, float], None] | None = None,
        on_threads: Callable[[Settings], None] | None = None,
        settings: Settings | None = None,
    ) -> None:
        _check(dataset, config, network)
        self._began = time.perf_counter()
        self._device = torch.device(device) if device is not None else choose_device()
        self.settings = settings or Settings()
        inputs = Inputs.of(
            network,
            dataset,
            config,
            device=self._device,
            channels_last=self.settings.channels_last,
        )
        self._inputs = inputs
        self._model = model.to(self._device, memory_format=inputs.layout)
        count = self.settings.parts if self._device.type == "cpu" else 1
        self._parts = Parts(self._model, count, config.seed)
        # To walk through the modules at each step would cost a small network a fiftieth of it.
        self._weights = list(self._model.parameters())
        self._named_buffers = list(self._model.named_buffers())
        self._config = config
        self._network = network
        self._should_stop = should_stop or (lambda: False)
        self._on_event = on_event or (lambda event: None)
        self._on_ready = on_ready
        self._on_update = on_update
        self._on_rate = on_rate
        self._on_threads = on_threads
        self._wanted_rate: float | None = None
        self._wanted_threads: int | None = None
        self._test_set = dataset.test_images, dataset.test_labels
        torch.manual_seed(config.seed)
        self._batches = Batches(dataset, config, inputs, resize_once=self.settings.resize_once)
        steps = self._batches.steps
        self.total_steps = steps * config.total_epochs
        self._interval = event_interval(network, config.batch_size)
        # Whole intervals between interim tests, so that each has an event to travel in.
        self._test_every = self._interval * max(1, round(steps / INTERIM_TESTS / self._interval))
        between = steps * config.batch_size / INTERIM_TESTS
        self._interim = _interim_sample(*self._test_set, network.num_classes, between)

        self._optimizer = build_optimizer(self._model, config)
        self.step, self.epoch, self._position, self._epoch_ended = 0, 0, 0, True
        self._rate = 0.0
        self._whole, self._since = Totals(self._device), Totals(self._device)
        self._norms = Norms()
        self.tested: Evaluation | None = None
        # What a state is made of besides, as of the last step.
        self._buffers: dict[str, torch.Tensor] = {}
        self._random: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()
        self._closed = self._broken = False
        self._resumed = state is not None
        if state is not None:
            self._restore(state)
        # Those of the last step until the next: what is to be done between them was begun so.
        self._threads = self.settings.threads_after(max(self.step - 1, 0))

    def events(self, *, initialize: bool = True) -> Iterator[StepEvent | EpochEvent]:
        """Train to the end and yield what `fit` yields.

        Raises:
            DivergedError: when the loss is not finite any more.
            Stopped: after `state(close=True)`.
        """
        # The start's few large blocks would leave holes that those of the steps do not fit into.
        with allocator.freed_at_once():
            self.prepare(initialize=initialize)
            if self._on_ready is not None and not self._resumed:
                self._on_ready(self._model, self._inputs)
        if self._event_due():
            yield from self._step_event()
        while not self._should_stop():
            if self._epoch_ended:
                if self.ended:
                    return
                with self._lock:
                    self.epoch += 1
                    self._position, self._epoch_ended = 0, False
                    self._whole = Totals(self._device)
                    self._batches.begin_epoch()
            for images, labels, began in self._batches.from_step(self._position):
                self.take_step(images, labels, began)
                if self._event_due():
                    yield from self._step_event()
                if self._should_stop():
                    return
            tested = self._test(*self._test_set)
            if self._should_stop():
                return
            with watched(self._model) as dead:
                self._test(*self._interim)
            if self._should_stop():
                return
            event = EpochEvent(
                **self._progress(),
                **self._whole.figures(),
                seconds=self._seconds(),
                test_loss=tested.loss,
                test_accuracy=tested.accuracy,
                dead_channels=dead.counts(),
            )
            with self._lock:
                self._on_event(event)
                self._epoch_ended = True
                self.tested = tested
            yield event

    def prepare(self, *, initialize: bool = True) -> None:
        """Make ready for the next step: weights, unless they go on from a state, and modes.

        Args:
            initialize: set the weights as the recipe says; False keeps those of the model.
        """
        if initialize and not self._resumed:
            if self._config.initialization == "xavier":
                initialize_xavier(self._model)
            else:
                inputs = self._batches.first(start_images(self._network))
                initialize_unit_variance(self._model, inputs, final_relu=self._network.final_relu)
        self._parts.follow()
        self._parts.train(use_dropout=self._config.use_dropout)

    def epoch_batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """The batches of a whole epoch, for `take_step`; to time steps, beside `events`."""
        return self._batches.from_step(0)

    def change_rate(self, rate: float) -> None:
        """From the next step on, train with this rate (its cycle's peak). Thread-safe."""
        self._wanted_rate = rate

    def change_threads(self, threads: int) -> None:
        """From the next step on, compute with so many threads. Thread-safe.

        Where `settings` has changes yet to come, because a state before them goes on, after those.
        """
        self._wanted_threads = threads

    @property
    def threads(self) -> int:
        """The threads of the next step, or those that are wanted from some later step on."""
        wanted = self._wanted_threads
        return self.settings.threads_after(self.step) if wanted is None else wanted

    @property
    def lanes(self) -> Lanes:
        """The threads that compute."""
        return self._parts.lanes

    @property
    def ended(self) -> bool:
        """Whether all epochs are done."""
        return self._epoch_ended and self.epoch == self._config.total_epochs

    def state(self, *, close: bool = False) -> TrainingState | None:
        """A copy of the state after the last finished step; None before the first. Thread-safe.

        With `close` there will be no further step: the training loop gets `Stopped` instead.
        """
        # A step that hangs half way never gives the lock back: its weights are worth nothing.
        if not self._lock.acquire(timeout=UPDATE_SECONDS):
            return None
        try:
            self._closed = self._closed or close
            if not self.step or self._broken:
                return None
            weights = dict(self._model.named_parameters()) | self._buffers
            rest = self._random | optimizer_tensors(self._model, self._optimizer)
            rest["random/shuffling"] = self._batches.epoch_began
            rest["sums/interval"], rest["sums/epoch"] = self._since.saved(), self._whole.saved()
            rest["norms"] = self._norms.saved()
            return TrainingState(
                step=self.step,
                epoch=self.epoch,
                position=self._position,
                epoch_ended=self._epoch_ended,
                event_due=self._event_due(),
                seconds=self._seconds(),
                weights={name: copied(value) for name, value in weights.items()},
                rest=rest,
            )
        finally:
            self._lock.release()

    def _restore(self, state: TrainingState) -> None:
        try:
            self._model.load_state_dict(state.weights)
            restore_optimizer(self._model, self._optimizer, state.rest)
            self._batches.go_on(state.rest["random/shuffling"], ended=state.epoch_ended)
            random = {
                key.removeprefix("random/"): value
                for key, value in state.rest.items()
                if key.startswith("random/")
            }
            restore_random_states(self._device, random)
            self._parts.restore(random)
            self._since = Totals(self._device, state.rest["sums/interval"])
            self._whole = Totals(self._device, state.rest["sums/epoch"])
            self._norms = Norms(state.rest.get("norms"))  # older versions kept none
        except (RuntimeError, KeyError) as error:
            raise ConfigError(
                "The kept state is not one of this network and recipe on this device, so the "
                "training cannot go on from it; starting a new run would work."
            ) from error
        self._random = {f"random/{name}": value for name, value in random.items()}
        self._buffers = {name: b.detach().clone() for name, b in self._model.named_buffers()}
        self.step, self.epoch = state.step, state.epoch
        self._position, self._epoch_ended = state.position, state.epoch_ended
        self._rate = rate_of_step(self._config, max(self.step - 1, 0), self._batches.steps)
        self._began -= state.seconds

    def _event_due(self) -> bool:
        """Whether the last step is one after which an event comes that has not been made."""
        return bool(self._since.images) and self._reports(self.step, self._position)

    def _reports(self, step: int, position: int) -> bool:
        """Whether an event comes after so many steps, so many of them in the epoch."""
        return step == 1 or step % self._interval == 0 or position == self._batches.steps

    def _step_event(self) -> Iterator[StepEvent]:
        """The event after the last step; nothing if the training is stopped meanwhile."""
        figures = self._since.figures()
        self._require_finite(figures["train_loss"])
        tests: dict[str, Any] = {}
        if self.step % self._test_every == 0 and self._position != self._batches.steps:
            with watched(self._model) as dead:
                tested = self._test(*self._interim)
            if self._should_stop():
                return
            tests = {
                "test_loss": tested.loss,
                "test_accuracy": tested.accuracy,
                "test_examples": len(tested.logits),
                "dead_channels": dead.counts(),
            }
        event = StepEvent(
            **self._progress(),
            **figures,
            **tests,
            **self._norms.figures(),
            seconds=self._seconds(),
        )
        with self._lock:
            self._on_event(event)
            self._whole.include(self._since)
            self._since = Totals(self._device)
        yield event

    def _progress(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "total_steps": self.total_steps,
            "learning_rate": self._rate,
        }

    def take_step(self, images: torch.Tensor, labels: torch.Tensor, began: float) -> None:
        """Change the weights by one batch, as `Batches.from_step` gives it.

        Raises:
            Stopped: after `state(close=True)`.
        """
        self._follow_wanted_threads()
        self._follow_wanted_rate()
        rate = rate_of_step(self._config, self.step, self._batches.steps)
        for weight in self._weights:
            weight.grad = None  # its memory is wanted
        loss, right = self._differentiate(images, labels)
        gradient = None
        if self._config.clip_norm > 0:
            gradient = nn.utils.clip_grad_norm_(self._weights, self._config.clip_norm)
        reports = self._reports(self.step + 1, self._position + 1)
        norms = Norms()
        if reports:
            norms.begin(self._weights, gradient)
        if self._on_update is not None:
            self._on_update()
            self._on_update = None
        with self._lock:
            if self._closed:
                raise Stopped
            self._broken = True  # until all of it is done
            self._optimizer.step(rate)
            if reports:
                norms.end(self._weights)
                self._norms = norms
            self._parts.agree(labels)
            self._since.add(loss, right, len(labels), time.perf_counter() - began)
            self._rate = rate
            self.step += 1
            self._position += 1
            # Batch norm's figures and dropout's generator change in the forward pass, so what they
            # are between two steps is set aside.
            self._buffers = {name: value.clone() for name, value in self._named_buffers}
            drawn = random_states(self._device) | self._parts.random_states()
            self._random |= {f"random/{name}": state for name, state in drawn.items()}
            self._broken = False

    def _differentiate(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the weights a batch's gradients; its mean loss, and how many were right."""
        size, smoothing = len(labels), self._config.label_smoothing
        weights = self._weights

        def work(
            model: nn.Module, images: torch.Tensor, labels: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
            inputs = self._inputs(images) if images.dtype == torch.uint8 else images
            labels = labels.to(self._device)
            logits = self._logits(model, inputs)
            share = len(labels) / size
            loss = functional.cross_entropy(logits, labels) * share
            objective = loss
            if smoothing:
                objective = share * functional.cross_entropy(
                    logits, labels, label_smoothing=smoothing
                )
            right = (logits.detach().argmax(1) == labels).sum()
            return loss.detach(), right, torch.autograd.grad(objective, weights)

        found = self._parts.each(work, images, labels, threads=self._threads)
        losses, rights, gradients = zip(*found, strict=True)
        for weight, parts in zip(weights, zip(*gradients, strict=True), strict=True):
            # In the weight's own layout, as the optimizer wants it; the parts are nobody else's.
            weight.grad = torch.empty_like(weight).copy_(parts[0])
            for part in parts[1:]:
                weight.grad.add_(part)
        return torch.stack(losses).sum(), torch.stack(rights).sum()

    def _logits(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        if not self.settings.bfloat16:
            return model(inputs)
        with torch.autocast(self._device.type, torch.bfloat16):
            return model(inputs).float()

    def _follow_wanted_threads(self) -> None:
        threads = self.settings.threads_after(self.step)
        changes = self.settings.thread_changes
        # Not before the first step: where it begins anew, its weights are to be made as they were.
        if self.step and (not changes or changes[-1][0] <= self.step):
            wanted, self._wanted_threads = self._wanted_threads, None
            if wanted is not None and wanted != threads:
                threads = wanted
                self.settings = self.settings.with_threads(self.step, wanted)
                if self._on_threads is not None:
                    self._on_threads(self.settings)
        if threads != self._threads:
            torch.set_num_threads(self.settings.torch_threads(self.step))
            self._threads = threads

    def _follow_wanted_rate(self) -> None:
        wanted, self._wanted_rate = self._wanted_rate, None
        if wanted is None:
            return
        self._config = self._config.with_rate(self.step, wanted)
        if self._on_rate is not None:
            self._on_rate(self.step, wanted)

    def _test(self, images: torch.Tensor, labels: torch.Tensor) -> Evaluation:
        # Its batches are of another size than a step's: the one's memory is of no use to the other.
        self.lanes.give_back()
        tested = evaluate(
            self._model,
            images,
            labels,
            self._inputs,
            should_stop=self._should_stop,
            threads=min(len(self._parts), self._threads),
            lanes=self.lanes,
        )
        self.lanes.give_back()
        return tested

    def _require_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        taken = self._config.recipe == "fast"
        if self.step == 1:  # of the weights as they began
            raise DivergedError(
                f"{DIVERGED} in the very first step: the weights start too large; "
                f"{fast_or('batch norm', taken=taken)} would work."
            )
        rate = self._config.rate_after(self.step)
        cure = fast_or(f"a rate of {rate / LOWER_RATE:g}", taken=taken)
        raise DivergedError(
            f"{DIVERGED} after step {self.step:,}: the learning rate of {rate:g} is too high "
            f"for this network; {cure} would work."
        )

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def _interim_sample(
    images: torch.Tensor, labels: torch.Tensor, classes: int, between: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test images of each class: balanced, fixed, and cheap against the training.

    Args:
        between: training images from one interim test to the next.
    """
    each = max(10, int(min(INTERIM_IMAGES, 0.15 * between)) // classes)
    indices = torch.cat([torch.nonzero(labels == label)[:each, 0] for label in range(classes)])
    return images[indices], labels[indices]


def _check(dataset: Dataset, config: TrainConfig, network: NiNConfig) -> None:
    classes = len(dataset.class_names)
    if classes > network.num_classes:
        raise ConfigError(
            f"{dataset.title} has {classes} classes, but the network has {network.num_classes} "
            f"class maps; num_classes {classes} would work.",
            field="num_classes",
            suggestion=classes,
        )
    check_batches(network, config, len(dataset.train_labels))
