"""Training as a plain generator of events: `fit` knows nothing of processes, stores or screens.

Choices made here:

* A step does arithmetic and little else. Images stay uint8 until they are in a batch; they are
  standardised and resized on the device (`data.prepare`); weights and batches are channels_last;
  loss and accuracy add up on the device and are read only when an event is due.
* Events come after a fixed number of steps, never by the clock, so that a run repeats exactly: the
  same seed, threads and machine give the same events, but for seconds and images per second.
* float32. On the machine this was measured on, which has AVX-512 bf16 but no AMX, a bf16 step of
  nin-slim-128 took 1.2 to 1.4 times as long in three probes of four, so autocast is not used.
* Test figures are measured in eval mode (dropout off, batch norm by its running averages). Training
  accuracy is that of the batches as they were trained on, as in the tutorial.
* `diagnose` tells dead class maps (see `recipes` for how they die) from other failures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .checks import ConfigError
from .config import NiNConfig
from .data import Dataset, prepare
from .estimate import (
    EVENT_SECONDS,
    FORWARD_SHARE,
    event_interval,
    seconds_per_image,
    steps_per_epoch,
)
from .initialization import initialize_unit_variance, initialize_xavier
from .recipes import TrainConfig
from .summary import summarize

ADAMW_SECOND_BETA = 0.95

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


@dataclass(frozen=True, slots=True)
class EpochEvent:
    """The end of an epoch: training means over the epoch, test figures over the whole test set.

    Units as in `StepEvent`.
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


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A network's answers to a set of images.

    Attributes:
        logits: float32 [n, classes] on the CPU; n is smaller than asked if it was stopped early.
        loss, accuracy: cross-entropy (nats) and share of right answers over these n; NaN if n = 0.
    """

    logits: torch.Tensor
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a network does not learn.

    Attributes:
        dead_class_maps: how many class maps are zero for every probe image.
        num_classes: how many there are.
        logit_spread: largest standard deviation of a logit between the probe images.
        sentence: for people: what is wrong and what to change.
    """

    dead_class_maps: int
    num_classes: int
    logit_spread: float
    sentence: str


def choose_device() -> torch.device:
    """The device to train on: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def choose_threads(network: NiNConfig, batch_size: int, cores: int, running: int) -> int:
    """Threads for one run: one for a small network, else this run's share of the cores.

    A step of nin-slim-128 gains little from a second thread, and two processes with two threads
    each on two cores collapse to a tenth of their speed, so shares never overlap.

    Args:
        cores: of this computer.
        running: runs that train at the same time, this one included.
    """
    if seconds_per_image(network) * batch_size < EVENT_SECONDS / 3:
        return 1
    return max(1, cores // max(1, running))


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    network: NiNConfig,
    device: torch.device | str | None = None,
    should_stop: Callable[[], bool] | None = None,
    initialize: bool = True,
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

    Raises:
        ConfigError: if data set, network and configuration do not go together.
        DivergedError: when the loss is not finite any more.
    """
    _check(dataset, config, network)
    run = _Run(model, dataset, config, network, device, should_stop or (lambda: False))
    run.start(initialize)
    yield from run.events()


def evaluate(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    network: NiNConfig,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    should_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Logits, loss and accuracy in eval mode; every module's mode is restored afterwards.

    Args:
        images: uint8 [N, C, H, W]; labels: int64 [N].
        mean, std: as for `data.prepare`; None for a network trained without standardising.
        batch_size: default: what takes about a fifth of a second.
        should_stop: asked before each batch; once true, the figures are those of the images so far.
    """
    if batch_size is None:
        batch_size = _test_batch(network)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    outputs = []
    try:
        with torch.no_grad():
            for batch in images.split(batch_size):
                if should_stop is not None and should_stop():
                    break
                inputs = _inputs(batch, network, mean, std, device)
                outputs.append(model(inputs).float().cpu())
    finally:
        for module, mode in modes:
            module.training = mode
    if not outputs:
        return Evaluation(torch.empty(0, network.num_classes), math.nan, math.nan)
    logits = torch.cat(outputs)
    known = labels[: len(logits)].cpu()
    loss = functional.cross_entropy(logits, known).item()
    accuracy = (logits.argmax(1) == known).float().mean().item()
    return Evaluation(logits, loss, accuracy)


def diagnose(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    network: NiNConfig,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    device: torch.device | str = "cpu",
) -> Diagnosis | None:
    """Say in one line why a network does not learn; None if it does.

    Args:
        images, labels: a probe batch, uint8 [N, C, H, W] and int64 [N], with some images of every
            class (a few hundred suffice).

    A network is taken to learn if no class map is dead and its loss is clearly below ln(classes),
    what guessing costs.
    """
    probe = evaluate(model, images, labels, network=network, mean=mean, std=std, device=device)
    classes = network.num_classes
    if not torch.isfinite(probe.logits).all():
        return Diagnosis(
            0,
            classes,
            math.nan,
            "The weights are no longer finite numbers: the learning rate was too high; "
            "the fast recipe, or a rate ten times lower, would work.",
        )
    # The maps end in ReLU, so a pooled logit is zero exactly where its whole map is.
    dead = int((probe.logits.amax(0) <= 0).sum()) if network.final_relu else 0
    spread = probe.logits.std(0).max().item() if len(probe.logits) > 1 else 0.0
    guessing = math.log(classes)
    learned = probe.loss < 0.95 * guessing
    cure = (
        "Start again with the fast recipe, which starts with every map alive, "
        "or switch the final ReLU off."
    )
    if dead and not learned:
        return Diagnosis(
            dead,
            classes,
            spread,
            f"{dead} of {classes} class maps are zero for every probe image, and a dead class map "
            f"passes no gradient, so the loss sits at ln({classes}) = {guessing:.3f}. {cure}",
        )
    if dead:
        return Diagnosis(
            dead,
            classes,
            spread,
            f"{dead} of {classes} class maps are zero for every probe image, and a dead class map "
            f"passes no gradient, so {_classes(dead)} never named. {cure}",
        )
    if learned:
        return None
    return Diagnosis(
        dead,
        classes,
        spread,
        f"No class map is dead, but the loss of {probe.loss:.3f} is not clearly below "
        f"ln({classes}) = {guessing:.3f}, the loss of guessing: train longer, or use the fast "
        "recipe's learning rate.",
    )


def _classes(count: int) -> str:
    return "that class is" if count == 1 else "those classes are"


# --- one run -----------------------------------------------------------------------------------


class _Totals:
    """Sums over images, kept on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._images = 0
        self._seconds = 0.0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        count = len(labels)
        right = (logits.detach().argmax(1) == labels).sum()
        self._sums[0] += loss.detach() * count
        self._sums[1] += right
        self._images += count

    def add_seconds(self, seconds: float) -> None:
        self._seconds += seconds

    def include(self, other: _Totals) -> None:
        self._sums += other._sums
        self._images += other._images
        self._seconds += other._seconds

    def figures(self) -> dict[str, float]:
        loss, right = self._sums.tolist()
        return {
            "train_loss": loss / self._images,
            "train_accuracy": right / self._images,
            "examples_per_second": self._images / max(self._seconds, 1e-9),
        }


class _Run:
    """The state of one `fit`."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        config: TrainConfig,
        network: NiNConfig,
        device: torch.device | str | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self.began = time.perf_counter()
        self.device = torch.device(device) if device is not None else choose_device()
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.config = config
        self.network = network
        self.should_stop = should_stop
        self.mean = dataset.mean if config.standardize else None
        self.std = dataset.std if config.standardize else None
        self.images = dataset.train_images
        self.labels = dataset.train_labels
        self.test_images = dataset.test_images
        self.test_labels = dataset.test_labels
        torch.manual_seed(config.seed)
        # Its own generator: dropout draws from the global one, and must not change the order.
        self.shuffling = torch.Generator().manual_seed(config.seed)
        chosen = torch.randperm(len(self.images), generator=self.shuffling)
        self.chosen = chosen[: config.subset]
        self.steps = steps_per_epoch(config, len(self.images))
        self.total_steps = self.steps * config.epochs
        self.interval = event_interval(network, config.batch_size)

    def start(self, initialize: bool) -> None:
        if not initialize:
            return
        if self.config.initialization == "xavier":
            initialize_xavier(self.model)
        else:
            probe = self.images[self.chosen[: _probe_images(self.network)]]
            inputs = _inputs(probe, self.network, self.mean, self.std, self.device)
            initialize_unit_variance(self.model, inputs, final_relu=self.network.final_relu)

    def events(self) -> Iterator[StepEvent | EpochEvent]:
        optimizer = _optimizer(self.model, self.config)
        interim = self._interim_sample()
        # Whole intervals between interim tests, so that each has an event to travel in.
        every = self.interval * max(1, round(self.steps / INTERIM_TESTS / self.interval))
        step = 0
        for epoch in range(1, self.config.epochs + 1):
            self._set_mode()
            whole, since = _Totals(self.device), _Totals(self.device)
            for number, (inputs, labels, began) in enumerate(self._batches(), start=1):
                rate = self._rate(step)
                logits, loss = self._step(optimizer, rate, inputs, labels)
                step += 1
                since.add(loss, logits, labels)
                since.add_seconds(time.perf_counter() - began)
                last = number == self.steps
                if step == 1 or step % self.interval == 0 or last:
                    shared = {
                        "epoch": epoch,
                        "step": step,
                        "total_steps": self.total_steps,
                        "learning_rate": rate,
                    }
                    figures = since.figures()
                    self._require_finite(figures["train_loss"], step)
                    whole.include(since)
                    since = _Totals(self.device)
                    tests = {}
                    if step % every == 0 and not last:
                        tested = self._test(*interim)
                        if self.should_stop():
                            return
                        tests = {
                            "test_loss": tested.loss,
                            "test_accuracy": tested.accuracy,
                            "test_examples": len(tested.logits),
                        }
                    yield StepEvent(**shared, **figures, **tests, seconds=self._seconds())
                if self.should_stop():
                    return
            tested = self._test(self.test_images, self.test_labels)
            if self.should_stop():
                return
            yield EpochEvent(
                **shared,
                **whole.figures(),
                seconds=self._seconds(),
                test_loss=tested.loss,
                test_accuracy=tested.accuracy,
            )

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        order = self.chosen[torch.randperm(len(self.chosen), generator=self.shuffling)]
        size = self.config.batch_size
        for number in range(self.steps):
            began = time.perf_counter()
            end = (number + 1) * size if number + 1 < self.steps else len(order)
            indices = order[number * size : end]
            inputs = _inputs(self.images[indices], self.network, self.mean, self.std, self.device)
            yield inputs, self.labels[indices].to(self.device), began

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        rate: float,
        inputs: torch.Tensor,
        labels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = self.model(inputs)
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        optimizer.step()
        return logits, loss

    def _rate(self, step: int) -> float:
        """Learning rate of the step after `step` steps."""
        peak = self.config.learning_rate
        if self.config.schedule == "constant":
            return peak
        rise = self.config.warmup * self.total_steps
        if step + 1 < rise:
            return peak * (step + 1) / rise
        # The step after the last would have a rate of zero.
        return peak * (self.total_steps - step) / max(1.0, self.total_steps - rise)

    def _set_mode(self) -> None:
        self.model.train()
        if not self.config.use_dropout:
            for module in self.model.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()

    def _interim_sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The first test images of each class: balanced, fixed, and cheap against the training."""
        between = self.steps * self.config.batch_size / INTERIM_TESTS
        classes = self.network.num_classes
        each = max(10, int(min(INTERIM_IMAGES, 0.15 * between)) // classes)
        indices = torch.cat(
            [torch.nonzero(self.test_labels == label)[:each, 0] for label in range(classes)]
        )
        return self.test_images[indices], self.test_labels[indices]

    def _test(self, images: torch.Tensor, labels: torch.Tensor) -> Evaluation:
        return evaluate(
            self.model,
            images,
            labels,
            network=self.network,
            mean=self.mean,
            std=self.std,
            device=self.device,
            should_stop=self.should_stop,
        )

    def _require_finite(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss is no longer a finite number after step {step:,}: the learning rate of "
                f"{self.config.learning_rate:g} is too high for this network; "
                f"{self.config.learning_rate / 10:g}, or the fast recipe, would work."
            )

    def _seconds(self) -> float:
        return time.perf_counter() - self.began


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(config.momentum, ADAMW_SECOND_BETA),
            weight_decay=config.weight_decay,
            foreach=True,
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        foreach=True,
    )


def _inputs(
    images: torch.Tensor,
    network: NiNConfig,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    device: torch.device | str,
) -> torch.Tensor:
    return prepare(
        images,
        image_size=network.image_size,
        in_channels=network.in_channels,
        mean=mean,
        std=std,
        device=device,
        channels_last=True,
    )


def _test_batch(network: NiNConfig) -> int:
    """Images that a fifth of a second suffices for, so that a stop is never far; at most 250."""
    return max(1, min(250, int(0.2 / (seconds_per_image(network) * FORWARD_SHARE))))


def _probe_images(network: NiNConfig) -> int:
    """Images for the initialisation: 256, fewer where one layer's outputs would exceed 256 MB."""
    largest = max(layer.activation_bytes for layer in summarize(network).layers)
    return max(2, min(256, 256_000_000 // largest))


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
