"""What a run will cost before it starts: seconds, bytes, and how often it reports. No torch.

The model of time has two terms per image, both known from the configuration: multiply-accumulates
at the rate of a matrix product, and values written, since in a narrow network (6 to 24 channels)
ReLU, pooling and memory traffic cost more than the arithmetic. The two constants are for one thread
of a shared 2-core AVX-512 machine (nin-slim-128: 0.3 ms an image, measured; nin-224: 40 ms, from a
step of 2 to 3 s). They rank networks; `measured_speed` scales them to this computer by its runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from .config import NiNConfig
from .recipes import TrainConfig
from .summary import BYTES, summarize

# Training (forward, backward, update) on the reference thread.
SECONDS_PER_VALUE = 5e-9
SECONDS_PER_MAC = 1 / 32e9
SECONDS_PER_STEP = 2e-3  # Python and the calls into torch, whatever the batch
FORWARD_SHARE = 1 / 3  # of a training step: the backward pass costs two forward passes

TEST_BYTES, LEAST_TEST = 2_500_000, 2  # a layer's values, and images, that a thread tests at a time

EVENT_SECONDS = 0.3  # on two ordinary cores, i.e. what the page needs for a curve that moves
START_IMAGES, START_PART = 256, 32  # that the initialisation sees, and those it has pass at once


def seconds_per_image(network: NiNConfig) -> float:
    """Seconds to train on one image on the reference thread (see the module)."""
    summary = summarize(network)
    values = summary.total_activation_bytes / BYTES
    return values * SECONDS_PER_VALUE + summary.total_macs * SECONDS_PER_MAC


def test_batch(network: NiNConfig) -> int:
    """Images that a thread tests at a time: a fifth of a second's, so that a stop is never far.

    At most 32, and fewer where a layer's input and output would exceed `TEST_BYTES`: more are
    hardly faster on a processor (two threads answer 440 images a second of nin-cifar10 4 at a time
    each, and 447 of them 32 at a time; 4,500 of nin-28 12 at a time, 5,000 of them 24 at a time),
    and would need more memory than a small step of the training.
    """
    soon = int(0.2 / (seconds_per_image(network) * FORWARD_SHARE))
    small = max(LEAST_TEST, TEST_BYTES // summarize(network).largest_pair_bytes)
    return max(1, min(32, soon, small))


def start_images(network: NiNConfig) -> int:
    """Images for the initialisation: 256, fewer where one layer's outputs would exceed 256 MB."""
    largest = max(layer.activation_bytes for layer in summarize(network).layers)
    return max(2, min(START_IMAGES, 256_000_000 // largest))


def event_interval(network: NiNConfig, batch_size: int) -> int:
    """Steps from one `StepEvent` to the next, at least 1.

    By the cost of the configuration, not by the clock, so that a run reports at the same steps
    wherever and whenever it is repeated.
    """
    step = SECONDS_PER_STEP + seconds_per_image(network) * batch_size
    return max(1, round(EVENT_SECONDS / step))


def steps_per_epoch(config: TrainConfig, train_size: int) -> int:
    """Steps of one epoch over `train_size` images, or over the subset if that is smaller."""
    images = min(config.subset or train_size, train_size)
    full, rest = divmod(images, config.batch_size)
    # A lone last image joins the batch before it: batch norm cannot take one value a channel.
    return full + (rest > 1 or full == 0)


def predict_seconds(
    network: NiNConfig,
    config: TrainConfig,
    *,
    train_size: int,
    test_size: int,
    speed: float = 1.0,
) -> float:
    """Seconds a whole run will take, with its test after every epoch.

    Args:
        train_size, test_size: images of the data set; `config.subset` is heeded.
        speed: this computer against the reference thread, from `measured_speed`.
    """
    train = min(config.subset or train_size, train_size)
    images = config.total_epochs * (train + FORWARD_SHARE * test_size)
    steps = config.total_epochs * steps_per_epoch(config, train_size)
    return (images * seconds_per_image(network) + steps * SECONDS_PER_STEP) / speed


def measured_speed(runs: Iterable[tuple[NiNConfig, float]]) -> float | None:
    """How fast this computer trains, against the reference thread; None without a run.

    Args:
        runs: the network and the training images per second of each earlier run.
    """
    speeds = [rate * seconds_per_image(network) for network, rate in runs if rate > 0]
    return median(speeds) if speeds else None
