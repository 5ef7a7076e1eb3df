"""Training as a plain generator of events: `fit` knows nothing of processes, stores or screens.

Choices made here:

* A step does arithmetic and little else. Images stay uint8 until they are in a batch; they are
  standardised and resized on the device (`data.prepare`); weights and batches are channels_last;
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
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from . import allocator
from .augmentation import Augmentation
from .checks import ConfigError
from .config import NiNConfig
from .data import Dataset
from .datasets import DatasetInfo
from .diagnosis import Evaluation, evaluate, inputs_of
from .estimate import event_interval, start_images, steps_per_epoch
from .initialization import initialize_unit_variance, initialize_xavier
from .model import build_nin, can_use_channels_last
from .parts import Parts
from .recipes import MIN_RATE, TrainConfig
from .trouble import DIVERGED
from .tuning import Settings
from .vitals import Norms, watched

ADAMW_SECOND_BETA = 0.95
UPDATE_SECONDS = 5.0  # more than any optimizer takes to change the weights

RESIZE_PART = 500  # images that are resized at a time where all of them are
INTERIM_TESTS = 8  # an epoch
INTERIM_IMAGES = 1000  # at most; fewer if they would cost more than 5 % of the training


class DivergedError(RuntimeError):
    """The loss is no longer a finite number: one sentence that says when and what to change."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Progress within an epoch.

    Attributes:
        epoch: the current one, from 1.
        step, total_steps: steps done since the start, and of the whole run.
        train_loss, train_accuracy: means over the images since the previous event (accuracy 0..1).
        learning_rate: of the last step.
        examples_per_second: training images, without time spent on tests, since the previous event.
        seconds: since `fit` was started.
        test_loss, test_accuracy, test_examples: an interim estimate on the first images of each
            class of the test set, a few times an epoch; None otherwise.
        dead_channels: convolution -> channels that were zero for every one of these images; with
            the interim estimate only.
        gradient_norm, update_norm: of all weights in the last step, see `vitals`; None if a run of
            an older version goes on.
    """

    epoch: int
    step: int
    total_steps: int
    train_loss: float
    train_accuracy: float
    learning_rate: float
    examples_per_second: float
    seconds: float
    test_loss: float | None = None
    test_accuracy: float | None = None
    test_examples: int | None = None
    dead_channels: dict[str, int] | None = None
    gradient_norm: float | None = None
    update_norm: float | None = None


@dataclass(frozen=True, slots=True)
class EpochEvent:
    """The end of an epoch: training means over the epoch, test figures over the whole test set.

    Units as in `StepEvent`; `dead_channels` over the images of the interim test.
    """

    epoch: int
    step: int
    total_steps: int
    train_loss: float
    train_accuracy: float
    learning_rate: float
    examples_per_second: float
    seconds: float
    test_loss: float
    test_accuracy: float
    dead_channels: dict[str, int]


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
    training._initialize()
    training._set_mode()
    return model


TIMED_BATCHES = 16  # of random images that a timed step takes in turn


def step_timer(
    network: NiNConfig, train: TrainConfig, info: DatasetInfo, batch_size: int, settings: Settings
) -> Callable[[], float]:
    """A function that takes one step of a training on random images and returns its seconds.

    On the CPU, at a rate that changes next to nothing. Sets PyTorch's threads and seeds its global
    generator.

    Args:
        info: the data set whose images are imitated, in size and channels.
        batch_size: images in a step, whatever `train` says.
    """
    torch.set_num_threads(settings.torch_threads(0))
    config = train.varied(
        batch_size=batch_size,
        subset=None,
        epochs=1,
        learning_rate=MIN_RATE,
        schedule="constant",
    )
    torch.manual_seed(config.seed)
    images = torch.randint(
        256, (TIMED_BATCHES * batch_size, info.channels, info.side, info.side), dtype=torch.uint8
    )
    labels = torch.arange(len(images)) % info.num_classes
    dataset = Dataset(
        name=info.name,
        title=info.title,
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        class_names=info.class_names,
        mean=info.mean,
        std=info.std,
        generated=True,
        source="",
    )
    training = Training(
        build_nin(network), dataset, config, network=network, device="cpu", settings=settings
    )
    return training._timed_step()


# --- one run -----------------------------------------------------------------------------------


class Stopped(BaseException):
    """Raised in the training loop when its state was taken for good without it. Not an error."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that a training needs to go on as if it had never ended. Tensors are on the CPU.

    Attributes:
        step: steps done since the start.
        epoch: the current one, from 1, and `position`, how many of its steps are done.
        epoch_ended: whether that epoch's event has been made.
        event_due: whether the last step's event has not been made yet.
        seconds: spent so far.
        weights: the network's parameters and buffers, by name.
        rest: the optimizer's tensors (``optimizer/<parameter>/<slot>``), the generators' states
            (``random/…``, uint8), the sums of the unfinished interval and epoch (``sums/…``) and
            the last step's lengths (``norms``).
    """

    step: int
    epoch: int
    position: int
    epoch_ended: bool
    event_due: bool
    seconds: float
    weights: dict[str, torch.Tensor]
    rest: dict[str, torch.Tensor]


class _Totals:
    """Sums over images, kept on the device until they are read."""

    def __init__(self, device: torch.device, saved: torch.Tensor | None = None) -> None:
        # MPS has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(2, dtype=dtype, device=device)
        self.images = 0
        self._seconds = 0.0
        if saved is not None:
            loss, right, images, self._seconds = saved.tolist()
            self._sums += torch.tensor([loss, right], dtype=dtype, device=device)
            self.images = int(images)

    def saved(self) -> torch.Tensor:
        """float64 [4]: loss times images, right answers, images, seconds."""
        return torch.tensor([*self._sums.tolist(), self.images, self._seconds], dtype=torch.float64)

    def add(self, loss: torch.Tensor, right: torch.Tensor, count: int, seconds: float) -> None:
        self._sums[0] += loss * count
        self._sums[1] += right
        self.images += count
        self._seconds += seconds

    def include(self, other: _Totals) -> None:
        self._sums += other._sums
        self.images += other.images
        self._seconds += other._seconds

    def figures(self) -> dict[str, float]:
        loss, right = self._sums.tolist()
        return {
            "train_loss": loss / self.images,
            "train_accuracy": right / self.images,
            "examples_per_second": self.images / max(self._seconds, 1e-9),
        }


class Training:
    """One training of one model: its events, and its state, which another thread may take.

    A step changes weights, optimizer, sums and counters under one lock; whoever takes the state
    gets it as it was between two steps, however long the next one takes.

    Args:
        model, dataset, config, network, device, should_stop: as for `fit`.
        state: go on from here; every event that follows is then what it would have been, to the
            bit, on the same machine with the same number of threads.
        on_update: called before this object changes the weights for the first time.
        on_rate: called with a step and a rate that was changed after it (see `change_rate`),
            before the next step's event.
        on_threads: called with the new `settings` when threads have changed (see
            `change_threads`), before the next step's event.
        settings: how the steps are computed; PyTorch is to have `settings.torch_threads` after the
            steps of `state` when it is made. A state goes on to the bit only with the settings that
            it came about with.

    Attributes:
        epoch, step, total_steps: as in the events.
        settings: those given, with the changes of threads that came since.
        tested: the last pass over the whole test set and the step after which it was made.

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
        on_update: Callable[[], None] | None = None,
        on_rate: Callable[[int, float], None] | None = None,
        on_threads: Callable[[Settings], None] | None = None,
        settings: Settings | None = None,
    ) -> None:
        _check(dataset, config, network)
        self._began = time.perf_counter()
        self._device = torch.device(device) if device is not None else choose_device()
        settings = settings or Settings()
        self.settings = settings
        self._channels_last = settings.channels_last and can_use_channels_last(network)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        self._model = model.to(self._device, memory_format=layout)
        self._bfloat16, self._resizes_once = settings.bfloat16, settings.resize_once
        count = settings.parts if self._device.type == "cpu" else 1
        self._parts = Parts(self._model, count, config.seed)
        # To walk through the modules at each step would cost a small network a fiftieth of it.
        self._weights = list(self._model.parameters())
        self._named_buffers = list(self._model.named_buffers())
        self._resized: torch.Tensor | None = None
        self._config = config
        self._network = network
        self._should_stop = should_stop or (lambda: False)
        self._on_update = on_update
        self._on_rate = on_rate
        self._on_threads = on_threads
        self._wanted_rate: float | None = None
        self._wanted_threads: int | None = None
        self._mean = dataset.mean if config.standardize else None
        self._std = dataset.std if config.standardize else None
        self._images = dataset.train_images
        self._labels = dataset.train_labels
        self._test_images = dataset.test_images
        self._test_labels = dataset.test_labels
        torch.manual_seed(config.seed)
        # Its own generator: dropout draws from the global one, and must not change the order.
        self._shuffling = torch.Generator().manual_seed(config.seed)
        chosen = torch.randperm(len(self._images), generator=self._shuffling)
        self._chosen = chosen[: config.subset]
        self._steps = steps_per_epoch(config, len(self._images))
        self.total_steps = self._steps * config.total_epochs
        self._interval = event_interval(network, config.batch_size)
        # Whole intervals between interim tests, so that each has an event to travel in.
        intervals = max(1, round(self._steps / INTERIM_TESTS / self._interval))
        self._test_every = self._interval * intervals
        self._interim = self._interim_sample()

        self._optimizer = _optimizer(self._model, config)
        self.step, self.epoch, self._position, self._epoch_ended = 0, 0, 0, True
        self._rate = 0.0
        self._whole, self._since = _Totals(self._device), _Totals(self._device)
        self._norms = Norms()
        self.tested: tuple[int, Evaluation] | None = None
        # What a state is made of besides, as of the last step.
        self._buffers: dict[str, torch.Tensor] = {}
        self._random: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()
        self._closed = self._broken = False
        self._resumed = state is not None
        if state is not None:
            self._restore(state)
        self._threads = settings.threads_after(self.step)

    def events(self, *, initialize: bool = True) -> Iterator[StepEvent | EpochEvent]:
        """Train to the end and yield what `fit` yields.

        Raises:
            DivergedError: when the loss is not finite any more.
            Stopped: after `state(close=True)`.
        """
        allocator.keep_freed()
        if initialize and not self._resumed:
            self._initialize()
        self._parts.follow()
        self._set_mode()
        if self._event_due():
            yield from self._step_event()
        while not self._should_stop():
            if self._epoch_ended:
                if self.epoch == self._config.total_epochs:
                    return
                with self._lock:
                    self.epoch += 1
                    self._position, self._epoch_ended = 0, False
                    self._whole = _Totals(self._device)
                    self._random["random/shuffling"] = self._shuffling.get_state()
            for images, labels, began in self._batches():
                self._take_step(images, labels, began)
                if self._event_due():
                    yield from self._step_event()
                if self._should_stop():
                    return
            tested = self._test(self._test_images, self._test_labels)
            if self._should_stop():
                return
            self.tested = self.step, tested
            with watched(self._model) as dead:
                self._test(*self._interim)
            if self._should_stop():
                return
            with self._lock:
                self._epoch_ended = True
            yield EpochEvent(
                **self._progress(),
                **self._whole.figures(),
                seconds=self._seconds(),
                test_loss=tested.loss,
                test_accuracy=tested.accuracy,
                dead_channels=dead.counts(),
            )

    def change_rate(self, rate: float) -> None:
        """From the next step on, train with this rate (its cycle's peak). Thread-safe."""
        self._wanted_rate = rate

    def change_threads(self, threads: int) -> None:
        """From the next step on, compute with so many threads. Thread-safe.

        Where `settings` has changes yet to come, because a state before them goes on, after those.
        """
        self._wanted_threads = threads

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
            named = dict(self._model.named_parameters())
            rest = dict(self._random)
            for name, parameter in named.items():
                for slot, value in self._optimizer.state.get(parameter, {}).items():
                    if isinstance(value, torch.Tensor):
                        rest[f"optimizer/{name}/{slot}"] = _copy(value)
            rest["sums/interval"], rest["sums/epoch"] = self._since.saved(), self._whole.saved()
            rest["norms"] = self._norms.saved()
            return TrainingState(
                step=self.step,
                epoch=self.epoch,
                position=self._position,
                epoch_ended=self._epoch_ended,
                event_due=self._event_due(),
                seconds=self._seconds(),
                weights={name: _copy(value) for name, value in (named | self._buffers).items()},
                rest=rest,
            )
        finally:
            self._lock.release()

    def _initialize(self) -> None:
        if self._config.initialization == "xavier":
            initialize_xavier(self._model)
        else:
            inputs = self._prepared(self._images[self._chosen[: start_images(self._network)]])
            initialize_unit_variance(self._model, inputs, final_relu=self._network.final_relu)
            del inputs
            allocator.give_back()

    def _restore(self, state: TrainingState) -> None:
        try:
            self._model.load_state_dict(state.weights)
            for name, parameter in self._model.named_parameters():
                prefix = f"optimizer/{name}/"
                slots = {
                    key.removeprefix(prefix): value
                    for key, value in state.rest.items()
                    if key.startswith(prefix)
                }
                if slots:
                    # As the optimizer would have made them: on the weight's device, in its layout.
                    self._optimizer.state[parameter] = {
                        slot: torch.empty_like(parameter).copy_(value)
                        if value.shape == parameter.shape
                        else value.clone()
                        for slot, value in slots.items()
                    }
            self._shuffling.set_state(state.rest["random/shuffling"])  # as the epoch began
            if state.epoch_ended:
                self._drawn()
            torch.set_rng_state(state.rest["random/torch"])
            if self._device.type == "cuda":
                torch.cuda.set_rng_state(state.rest["random/cuda"], self._device)
            random = {
                key.removeprefix("random/"): value
                for key, value in state.rest.items()
                if key.startswith("random/")
            }
            self._parts.restore(random)
            self._since = _Totals(self._device, state.rest["sums/interval"])
            self._whole = _Totals(self._device, state.rest["sums/epoch"])
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
        self._rate = self._rate_after(max(self.step - 1, 0))
        self._began -= state.seconds

    def _event_due(self) -> bool:
        """Whether the last step is one after which an event comes that has not been made."""
        return bool(self._since.images) and self._reports(self.step, self._position)

    def _reports(self, step: int, position: int) -> bool:
        """Whether an event comes after so many steps, so many of them in the epoch."""
        return step == 1 or step % self._interval == 0 or position == self._steps

    def _step_event(self) -> Iterator[StepEvent]:
        """The event after the last step; nothing if the training is stopped meanwhile."""
        figures = self._since.figures()
        self._require_finite(figures["train_loss"])
        tests: dict[str, Any] = {}
        if self.step % self._test_every == 0 and self._position != self._steps:
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
        with self._lock:
            self._whole.include(self._since)
            self._since = _Totals(self._device)
        yield StepEvent(
            **self._progress(),
            **figures,
            **tests,
            **self._norms.figures(),
            seconds=self._seconds(),
        )

    def _progress(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "total_steps": self.total_steps,
            "learning_rate": self._rate,
        }

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """The batches of this epoch that are left: images, labels, when their making began.

        Images are uint8, or float32 as the network takes them where they are resized once.
        """
        order, augmentation = self._drawn()
        size = self._config.batch_size
        for number in range(self._position, self._steps):
            began = time.perf_counter()
            end = (number + 1) * size if number + 1 < self._steps else len(order)
            indices = order[number * size : end]
            if self._resizes_once:
                yield self._resized_images(indices), self._labels[indices], began
                continue
            images = self._images[indices]
            if self._config.flip or self._config.shift:
                images = augmentation.part(number * size, end).apply(images.to(self._device))
            yield images, self._labels[indices], began

    def _resized_images(self, indices: torch.Tensor) -> torch.Tensor:
        """These training images as the network takes them; all are made at the first call."""
        if self._resized is None:
            side, channels = self._network.image_size, self._network.in_channels
            # Filled part by part: there is never a second copy of them all.
            resized = torch.empty(len(self._chosen), channels, side, side, device=self._device)
            for first in range(0, len(self._chosen), RESIZE_PART):
                part = slice(first, first + RESIZE_PART)
                resized[part] = self._prepared(self._images[self._chosen[part]])
            self._resized = resized
            self._places = torch.empty(len(self._images), dtype=torch.int64)
            self._places[self._chosen] = torch.arange(len(self._chosen))
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        return self._resized[self._places[indices]].contiguous(memory_format=layout)

    def _drawn(self) -> tuple[torch.Tensor, Augmentation]:
        """An epoch's order of the images, int64, and what happens to each of them."""
        order = self._chosen[torch.randperm(len(self._chosen), generator=self._shuffling)]
        return order, Augmentation.draw(
            len(order), self._shuffling, flip=self._config.flip, shift=self._config.shift
        )

    def _take_step(self, images: torch.Tensor, labels: torch.Tensor, began: float) -> None:
        self._follow_wanted_threads()
        self._follow_wanted_rate()
        rate = self._rate_after(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
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
            self._optimizer.step()
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
            self._random["random/torch"] = torch.get_rng_state()
            for name, generator in self._parts.random_states().items():
                self._random[f"random/{name}"] = generator
            if self._device.type == "cuda":
                self._random["random/cuda"] = torch.cuda.get_rng_state(self._device)
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
            inputs = self._prepared(images) if images.dtype == torch.uint8 else images
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
        if not self._bfloat16:
            return model(inputs)
        with torch.autocast(self._device.type, torch.bfloat16):
            return model(inputs).float()

    def _timed_step(self) -> Callable[[], float]:
        """For `step_timer`: the batches of one epoch, over and over."""
        allocator.keep_freed()
        self._set_mode()
        batches = iter(())

        def step() -> float:
            nonlocal batches
            began = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                self._position = 0
                batches = self._batches()
                batch = next(batches)
            self._take_step(*batch)
            return time.perf_counter() - began

        return step

    def _follow_wanted_threads(self) -> None:
        threads = self.settings.threads_after(self.step)
        changes = self.settings.thread_changes
        if not changes or changes[-1][0] <= self.step:
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

    def _rate_after(self, step: int) -> float:
        """Learning rate of the step after `step` steps."""
        peak = self._config.rate_after(step)
        if self._config.schedule == "constant":
            return peak
        for epochs in (self._config.epochs, *self._config.more_epochs):
            length = epochs * self._steps
            if step < length:
                break
            step -= length
        rise = self._config.warmup * length
        if step + 1 < rise:
            return peak * (step + 1) / rise
        # The step after the last would have a rate of zero.
        return peak * (length - step) / max(1.0, length - rise)

    def _set_mode(self) -> None:
        self._parts.train(use_dropout=self._config.use_dropout)

    def _interim_sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The first test images of each class: balanced, fixed, and cheap against the training."""
        between = self._steps * self._config.batch_size / INTERIM_TESTS
        classes = self._network.num_classes
        each = max(10, int(min(INTERIM_IMAGES, 0.15 * between)) // classes)
        indices = torch.cat(
            [torch.nonzero(self._test_labels == label)[:each, 0] for label in range(classes)]
        )
        return self._test_images[indices], self._test_labels[indices]

    def _test(self, images: torch.Tensor, labels: torch.Tensor) -> Evaluation:
        # Its batches are of another size than a step's: the one's memory is of no use to the other.
        allocator.give_back()
        tested = evaluate(
            self._model,
            images,
            labels,
            network=self._network,
            mean=self._mean,
            std=self._std,
            device=self._device,
            should_stop=self._should_stop,
            channels_last=self._channels_last,
            parts=len(self._parts),
            threads=self._threads,
        )
        allocator.give_back()
        return tested

    def _prepared(self, images: torch.Tensor) -> torch.Tensor:
        return inputs_of(
            images, self._network, self._mean, self._std, self._device, self._channels_last
        )

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            rate = self._config.rate_after(self.step)
            raise DivergedError(
                f"{DIVERGED} after step {self.step:,}: the learning "
                f"rate of {rate:g} is too high for this network; {rate / 10:g}, or the fast "
                "recipe, would work."
            )

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if config.weight_decay and not config.decay_biases:
        # Biases and batch norm have one direction; convolutions have four.
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=(config.momentum, ADAMW_SECOND_BETA),
            weight_decay=config.weight_decay,
            foreach=True,
        )
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        foreach=True,
    )


def _check(dataset: Dataset, config: TrainConfig, network: NiNConfig) -> None:
    classes = len(dataset.class_names)
    if classes > network.num_classes:
        raise ConfigError(
            f"{dataset.title} has {classes} classes, but the network has {network.num_classes} "
            f"class maps; num_classes {classes} would work.",
            field="num_classes",
            suggestion=classes,
        )
    images = min(config.subset or len(dataset.train_labels), len(dataset.train_labels))
    if network.batch_norm and min(config.batch_size, images) < 2:
        raise ConfigError(
            "Batch norm needs at least 2 images a batch; a batch_size of 64 would work.",
            field="batch_size",
            suggestion=64,
        )
