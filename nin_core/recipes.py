"""How a network is trained: one frozen, validated record, and the recipes that fill it in.

Choices made here:

* `tutorial` is the tutorial's `train_ch6` to the letter (SGD at 0.1 without momentum, Xavier
  weights, batches of 64, constant rate, pixels in 0..1), so that its stalls can be seen and
  diagnosed.
* `fast` leaves every network as it is, too (the last ReLU, the head, the layers), and changes only
  where training starts and how it steps. It is built so that a class map cannot die:

  - *Why one dies.* Where a class map ends in ReLU and is zero, no gradient passes. Softmax pushes
    the maps of the wrong classes down and lifts only the right one, so a map that is already zero
    on its own class's images is never lifted again; once all are zero the loss is ln(classes) for
    good. At the usual initialisations several maps are zero for every image before the first step,
    and a rate that is too high for one step kills the rest.
  - *Start alive.* Layer-sequential unit-variance initialisation (Mishkin and Matas, arXiv
    1511.06422) with a mean of zero as well: whatever the widths and depth, each convolution's
    output starts with mean 0 and variance 1 per channel over a real batch. On top the last bias
    is lifted by five standard deviations (`initialization.CLASS_MAP_LIFT`), so that practically
    every class map is positive at every place and the network starts as if its last ReLU were not
    there. Softmax ignores a common shift, so the lift costs nothing.
  - *Stay alive.* While all maps are positive, the softmax gradient over the classes sums to zero:
    the maps move apart, not down together. Only a jump can push them all below zero, so the
    gradient's norm is clipped (so that a step has a length, whatever the loss), the rate warms up,
    and its peak depends on the network (`_fast`).

* The rest of `fast` is for speed: Nesterov SGD, or AdamW in narrow networks under average pooling,
  one cycle of the rate with a linear fall to zero (so that even a single epoch ends converged),
  standardised pixels, no dropout (networks this small underfit in an epoch, and dropout only slows
  them).
* `best` is for accuracy, and made for the preset `nin-28-best` (`benchmarks/best_recipe.py` says
  how much, in what time): several epochs in one cycle, at a high rate that batch norm allows, of
  images that are mirrored, with a weight decay that spares biases and batch norm. A network without
  batch norm gets the optimizer and rate of `fast`, which keep its class maps alive.
* No torch here: pages show and validate recipes before torch is loaded.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self

from .checks import ConfigError, choice, flag, real, record, whole
from .config import NiNConfig

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["constant", "one-cycle"]
Initialization = Literal["xavier", "unit-variance"]

MAX_EPOCHS = 1000
MAX_BATCH_SIZE = 4096
FAN_SEEDS = 6  # of a seed fan, unless another number is asked for
MAX_SEED = 2**31 - 1
MAX_SUBSET = 10_000_000
MIN_RATE, MAX_RATE = 1e-6, 10.0
MAX_SHIFT = 16  # pixels
# What a person may choose of a recipe: the least and the most of each number.
BOUNDS: dict[str, tuple[float, float]] = {
    "epochs": (1, MAX_EPOCHS),
    "learning_rate": (MIN_RATE, MAX_RATE),
    "batch_size": (1, MAX_BATCH_SIZE),
    "subset": (1, MAX_SUBSET),
    "seed": (0, MAX_SEED),
}

EPOCH_IMAGES = 60_000  # of Fashion-MNIST, for which the recipes were made


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """All that decides how a network is trained, besides the network and the data.

    Attributes:
        recipe: key of `RECIPES` that this was made from, for display.
        epochs, batch_size: whole numbers; a last batch may be smaller.
        learning_rate: the rate, for "one-cycle" its peak.
        optimizer: "sgd" or "adamw".
        momentum: SGD's momentum, or AdamW's first beta; 0 is plain SGD.
        nesterov: SGD with Nesterov's look-ahead; needs a momentum.
        weight_decay: SGD's L2 penalty, or AdamW's decoupled decay.
        schedule: "constant", or "one-cycle": a linear rise over the first `warmup` of all steps,
            then a linear fall to zero.
        warmup: share of all steps, 0 to 0.9.
        clip_norm: largest global norm of the gradient; 0 does not clip.
        initialization: "xavier" (the tutorial's) or "unit-variance" (see the module).
        standardize: subtract the training set's mean and divide by its standard deviation, per
            channel; otherwise pixels are in 0..1.
        use_dropout: whether the network's dropout layer is active in training.
        decay_biases: whether the weight decay holds for biases and batch norm, too.
        label_smoothing: share of each label that is spread over all classes, 0 to 0.9; the loss
            that is reported is that of the labels as they are.
        flip: mirror each image, in each epoch, with a chance of one half.
        shift: move each image, in each epoch, by up to so many pixels in each direction.
        subset: number of training images to use (a fixed random choice by the seed); None for all.
        seed: decides weights, order of the images, subset and dropout.
        more_epochs: epochs added after the end, once or several times; each addition has a cycle
            of its own under "one-cycle".
        rate_changes: ``(steps, rate)``, rising: after so many steps the rate (the peak of the
            cycle, which goes on) was changed to this while the run went.

    Raises:
        ConfigError: when made, for a value out of range.
    """

    recipe: str
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Optimizer
    momentum: float
    nesterov: bool
    weight_decay: float
    schedule: Schedule
    warmup: float
    clip_norm: float
    initialization: Initialization
    standardize: bool
    use_dropout: bool
    # Older runs have none of these four.
    decay_biases: bool = True
    label_smoothing: float = 0.0
    flip: bool = False
    shift: int = 0
    subset: int | None = None
    seed: int = 0
    more_epochs: tuple[int, ...] = ()
    rate_changes: tuple[tuple[int, float], ...] = ()

    @property
    def total_epochs(self) -> int:
        """Those of the start and all that were added."""
        return self.epochs + sum(self.more_epochs)

    def __post_init__(self) -> None:
        choice(self.recipe, "recipe", tuple(RECIPES), field="recipe")
        whole(self.epochs, "epochs", 1, MAX_EPOCHS, field="epochs")
        whole(self.batch_size, "batch_size", 1, MAX_BATCH_SIZE, field="batch_size", default=64)
        check_rate(self.learning_rate)
        object.__setattr__(self, "learning_rate", float(self.learning_rate))  # 1 is 1.0
        choice(self.optimizer, "optimizer", ("sgd", "adamw"), field="optimizer")
        real(self.momentum, "momentum", 0.0, 0.999, field="momentum", good=0.9)
        flag(self.nesterov, "nesterov", field="nesterov")
        if self.nesterov and (self.momentum == 0 or self.optimizer != "sgd"):
            raise ConfigError(
                "nesterov needs the sgd optimizer with a momentum above 0; false would work.",
                field="nesterov",
                suggestion=False,
            )
        real(self.weight_decay, "weight_decay", 0.0, 1.0, field="weight_decay", good=0.0)
        choice(self.schedule, "schedule", ("constant", "one-cycle"), field="schedule")
        real(self.warmup, "warmup", 0.0, 0.9, field="warmup", good=0.2)
        real(self.clip_norm, "clip_norm", 0.0, 1000.0, field="clip_norm", good=1.0)
        choice(
            self.initialization,
            "initialization",
            ("xavier", "unit-variance"),
            field="initialization",
        )
        flag(self.standardize, "standardize", field="standardize")
        flag(self.use_dropout, "use_dropout", field="use_dropout")
        flag(self.decay_biases, "decay_biases", field="decay_biases")
        smoothing = "label_smoothing"
        real(self.label_smoothing, smoothing, 0.0, 0.9, field=smoothing, good=0.1)
        flag(self.flip, "flip", field="flip")
        whole(self.shift, "shift", 0, MAX_SHIFT, field="shift", default=1)
        if self.subset is not None:
            whole(self.subset, "subset", 1, MAX_SUBSET, field="subset", default=6000)
        whole(self.seed, "seed", 0, MAX_SEED, field="seed")
        if not isinstance(self.more_epochs, list | tuple):
            raise ConfigError("more_epochs must be a list of whole numbers, e.g. [2].")
        object.__setattr__(self, "more_epochs", tuple(self.more_epochs))  # JSON has lists
        for added in self.more_epochs:
            whole(added, "more_epochs", 1, MAX_EPOCHS, field="more_epochs", default=1)
        object.__setattr__(self, "rate_changes", _rate_changes(self.rate_changes))
        whole(self.total_epochs, "epochs with more_epochs", 1, MAX_EPOCHS, field="more_epochs")

    def extended(self, epochs: int) -> Self:
        """This configuration with so many epochs added at its end.

        Raises:
            ConfigError: if they are none or too many.
        """
        return replace(self, more_epochs=(*self.more_epochs, epochs))

    def rate_after(self, step: int) -> float:
        """The rate, or the peak of its cycle, for the step that follows `step` steps."""
        rates = [rate for since, rate in self.rate_changes if since <= step]
        return rates[-1] if rates else self.learning_rate

    def with_rate(self, step: int, rate: float) -> Self:
        """This configuration with another rate after `step` steps, whatever was to come there.

        Raises:
            ConfigError: for a rate out of range.
        """
        if rate == self.rate_after(step) and all(since <= step for since, _ in self.rate_changes):
            return self
        earlier = [change for change in self.rate_changes if change[0] < step]
        return replace(self, rate_changes=(*earlier, (step, rate)))

    def varied(self, **changes: Any) -> Self:
        """A twin of this configuration with some fields changed.

        Epochs that were added go with another number of epochs, changes of the rate with another
        rate; with another batch size these come after as many images as before.

        Raises:
            ConfigError: for a field that there is not, or a value out of range.
        """
        values = record(type(self), changes, "a training configuration")
        if "epochs" in values:
            values = {"more_epochs": ()} | values
        if "learning_rate" in values:
            values = {"rate_changes": ()} | values
        elif "batch_size" in values and "rate_changes" not in values:
            size = whole(values["batch_size"], "batch_size", 1, MAX_BATCH_SIZE, field="batch_size")
            most = self.subset or MAX_SUBSET
            scale = min(self.batch_size, most) / min(size, most)
            moved = {round(step * scale): rate for step, rate in self.rate_changes}
            values |= {"rate_changes": tuple(moved.items())}
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Read what `to_dict` (or its JSON) gives.

        Raises:
            ConfigError: for unknown or missing fields and for values out of range.
        """
        values = record(cls, data, "a training configuration")
        try:
            return cls(**values)
        except TypeError as error:
            missing = [f.name for f in fields(cls) if f.name not in values]
            raise ConfigError(
                f"a training configuration needs {', '.join(missing)}.",
                field=missing[0] if missing else "",
            ) from error


def check_rate(rate: float) -> None:
    """Refuse a learning rate that no run may have, with a `ConfigError`."""
    real(rate, "learning_rate", MIN_RATE, MAX_RATE, field="learning_rate", good=0.05)


def check_batches(network: NiNConfig, train: TrainConfig, train_size: int) -> None:
    """Refuse batches of one image for a network with batch norm.

    Args:
        train_size: training images of the data set.

    Raises:
        ConfigError: with a batch size that would work.
    """
    images = min(train.subset or train_size, train_size)
    if network.batch_norm and min(train.batch_size, images) < 2:
        raise ConfigError(
            "Batch norm needs at least 2 images a batch; a batch size of 64 would work.",
            field="batch_size",
            suggestion=64,
        )


def _rate_changes(changes: Any) -> tuple[tuple[int, float], ...]:
    """The pairs as they are kept, from what may be JSON's lists."""
    try:
        pairs = tuple((step, rate) for step, rate in changes)
    except (TypeError, ValueError):
        raise ConfigError(
            "rate_changes must be pairs of a step and a rate, e.g. [[100, 0.01]].",
            field="rate_changes",
        ) from None
    last = -1
    for step, rate in pairs:
        whole(step, "rate_changes", last + 1, MAX_SUBSET * MAX_EPOCHS, field="rate_changes")
        check_rate(rate)
        last = step
    return pairs


@dataclass(frozen=True)
class Recipe:
    """A way of training that fits itself to the network it is given.

    Attributes:
        name: key in `RECIPES`; title and description: for people, one sentence.
    """

    name: str
    title: str
    description: str

    def configure(
        self,
        network: NiNConfig,
        *,
        train_size: int = EPOCH_IMAGES,
        mirrors: bool = True,
        **changes: Any,
    ) -> TrainConfig:
        """The recipe's configuration for `network`, with some fields changed.

        Args:
            train_size: training images of the data set; of a small one `fast` and `best` take more
                epochs.
            mirrors: whether a mirrored image of the data set still shows its class (see
                `datasets`); if not, `best` mirrors none.
            changes: fields of `TrainConfig` by name, e.g. ``epochs=2, seed=1``.

        Raises:
            ConfigError: for a field that there is not, or a value out of range.
        """
        values: dict[str, Any] = {"recipe": self.name, **_SETTINGS[self.name](network, train_size)}
        values["flip"] = values.get("flip", False) and mirrors
        return TrainConfig(**(values | record(TrainConfig, changes, "a training configuration")))


def _tutorial(network: NiNConfig, train_size: int) -> dict[str, Any]:
    return {
        "epochs": 10,
        "batch_size": 64,
        "learning_rate": 0.1,
        "optimizer": "sgd",
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup": 0.0,
        "clip_norm": 0.0,
        "initialization": "xavier",
        "standardize": False,
        "use_dropout": True,
    }


# AdamW was the quicker one in the narrow nin-slim-128 (largest fan-in 216) under average pooling,
# and the worse one in nin-224 (3456). Between the two it has not been tried.
ADAMW_FAN_IN = 256


def _fast(network: NiNConfig, train_size: int) -> dict[str, Any]:
    convolutions = [layer for layer in network.plan() if layer.kind in ("conv", "conv1x1")]
    fan_in = [layer.in_channels * layer.kernel_size**2 for layer in convolutions]
    values = {
        # As many images as an epoch of Fashion-MNIST, whatever the data set's size.
        "epochs": max(1, round(EPOCH_IMAGES / train_size)),
        "batch_size": 64,
        "weight_decay": 0.0,
        "schedule": "one-cycle",
        "clip_norm": 1.0,
        "initialization": "unit-variance",
        "standardize": True,
        "use_dropout": False,
    }
    if network.global_pool == "avg" and max(fan_in) <= ADAMW_FAN_IN:
        # After 36,000 images of Fashion-MNIST a first beta of 0.9 had eight seeds of nin-slim-128
        # between 80.7 and 82.5 %, 0.8 six between 79.4 and 82.2 %; after all, both were alike.
        return values | {
            "optimizer": "adamw",
            "learning_rate": 0.01,
            "momentum": 0.9,
            "nesterov": False,
            "warmup": 0.1,
        }
    # A clipped update of norm r changes a convolution's outputs, relative to their size, by up to
    # r·√(fan-in / width), since inputs and outputs start with unit variance. The largest ratio
    # decides: 21.6 in nin-slim-128, where 0.05 holds, 346 in nin-224, where it was too much.
    ratios = [n / layer.out_channels for n, layer in zip(fan_in, convolutions, strict=True)]
    rate = 0.05 * min(1.0, math.sqrt(22 / max(ratios)))
    return values | {
        "optimizer": "sgd",
        "learning_rate": float(f"{rate:.2g}"),
        "momentum": 0.9,
        "nesterov": True,
        "warmup": 0.2,
    }


BEST_EPOCHS = 11  # 415 to 429 s on two AVX2 cores, in parts


def _best(network: NiNConfig, train_size: int) -> dict[str, Any]:
    values = _fast(network, train_size)
    values |= {
        "epochs": BEST_EPOCHS * values["epochs"],
        "batch_size": 128,
        "weight_decay": 5e-4,
        "decay_biases": False,
        "use_dropout": True,
        # Mirrored only: moved by up to a pixel as well, seed 0 of nin-28-best ended at 92.9 % in
        # place of 93.5 %; twelve epochs were too few for both.
        "flip": True,
    }
    if network.batch_norm:
        values |= {
            "optimizer": "sgd",
            "learning_rate": 0.2,
            "momentum": 0.9,
            "nesterov": True,
            "warmup": 0.2,
            "clip_norm": 0.0,  # batch norm makes the length of a gradient say little
        }
    return values


_SETTINGS = {"tutorial": _tutorial, "fast": _fast, "best": _best}

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "fast",
            "Fast",
            "Starts with every class map alive and cycles the rate: one epoch learns what the "
            "tutorial's recipe learns in ten.",
        ),
        Recipe(
            "best",
            "Best",
            f"{BEST_EPOCHS} epochs of images that are mirrored at random, at a high rate where "
            "there is batch norm; training accuracy is then that of the mirrored images.",
        ),
        Recipe(
            "tutorial",
            "Tutorial",
            "The tutorial's own loop: Xavier weights, plain SGD at 0.1, batches of 64; "
            "it often stalls, and the diagnosis says why.",
        ),
    )
}
