"""What a network holds in memory, term by term, in inference and in a training step. No torch.

Every term is linear in the batch size, ``fixed + per_image·batch``, so that a chart over all batch
sizes and the largest batch that fits cost one call of `summarize`. The bytes come from
`NetworkSummary` (what autograd keeps, what a layer holds): table and ledger cannot disagree.

Choices made here:

* The terms of training are what must be provided for: weights, gradients, optimizer state, saved
  activations and transients. They never exist all at once, since gradients appear while saved
  activations are given back. `step_moments` therefore walks through a step, layer by layer,
  forward, backward and update; a measurement is compared with the largest of its moments.
* The walk follows PyTorch: a node of the graph gives back what it saved once its own backward has
  run, a tensor lives until the last node that saved it has, the gradients of a layer's output and
  input exist together, and the images need none.
* The walk also counts two copies of a k×k convolution's weights while its backward pass runs: its
  weights and their gradient in the order the processor likes. Found with PyTorch 2.14 on a CPU,
  where every allocation of the presets' steps adds up to the walk's peak within 0.1 %, but for
  nin-slim-128 with a single image (2 %). What PyTorch itself takes can only be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from .checks import choice
from .summary import BYTES, INDEX_BYTES, MAX_BATCH_SIZE, LayerSummary, NetworkSummary, volume

OptimizerName = Literal["sgd", "momentum", "adam", "adamw"]
Phase = Literal["forward", "backward", "update"]


class OptimizerMemory(NamedTuple):
    """What an optimizer holds for each parameter.

    Attributes:
        title: its usual name.
        slots: values kept from step to step.
        temporaries: values that exist only while the weights are updated.
        sentence: what the slots are.
    """

    title: str
    slots: int
    temporaries: int
    sentence: str


_ADAM = "two values a parameter, the running means of the gradient and of its square"
OPTIMIZERS: dict[OptimizerName, OptimizerMemory] = {
    "sgd": OptimizerMemory("SGD", 0, 0, "nothing: plain SGD needs only the gradient itself"),
    "momentum": OptimizerMemory(
        "SGD + momentum", 1, 0, "one value a parameter, the running sum of its gradients"
    ),
    # PyTorch computes the square root of the second mean for all parameters at once.
    "adam": OptimizerMemory("Adam", 2, 1, _ADAM),
    "adamw": OptimizerMemory("AdamW", 2, 1, _ADAM),
}


class Term(NamedTuple):
    """One line of the ledger: ``fixed + per_image·batch`` bytes, and why they are there."""

    name: str
    title: str
    fixed: int
    per_image: int
    sentence: str

    def bytes(self, batch_size: int) -> int:
        """Bytes for a batch of so many images."""
        return self.fixed + self.per_image * batch_size


@dataclass(frozen=True)
class Ledger:
    """Terms that add up to what a network holds in memory."""

    terms: tuple[Term, ...]

    def total(self, batch_size: int) -> int:
        """Bytes of all terms for a batch."""
        return sum(term.bytes(batch_size) for term in self.terms)

    def largest_batch(self, available: int) -> int:
        """Most images whose total is within `available` bytes; 0 if not even one fits.

        At most the 65,536 that `summarize` takes.
        """
        fixed = sum(term.fixed for term in self.terms)
        per_image = sum(term.per_image for term in self.terms)
        if fixed + per_image > available:
            return 0
        return min((available - fixed) // per_image, MAX_BATCH_SIZE)


def inference_ledger(summary: NetworkSummary) -> Ledger:
    """Memory of a forward pass without autograd: weights, batch, largest pair of activations."""
    layer, pair = _largest_inference_pair(summary)
    return Ledger(
        (
            _weights(summary),
            Term(
                "batch",
                "Batch",
                0,
                summary.input_bytes // summary.batch_size,
                "The images, held by whoever asks for the answer.",
            ),
            Term(
                "live",
                "Live activations",
                0,
                pair // summary.batch_size,
                f"Input and output of {layer}, the layer with the largest pair: all others are "
                "freed by then, or not made yet.",
            ),
        )
    )


def training_ledger(summary: NetworkSummary, optimizer: OptimizerName = "momentum") -> Ledger:
    """Memory of a training step; its total is `summary.training_bytes(slots)`.

    Raises:
        ConfigError: for an optimizer that is not in `OPTIMIZERS`.
    """
    chosen = OPTIMIZERS[_known(optimizer)]
    statistics = sum(
        _side_bytes(row, first=False) for row in summary.layers if row.kind == "batch_norm"
    )
    weights = summary.parameter_bytes
    return Ledger(
        (
            _weights(summary),
            Term("gradients", "Gradients", weights, 0, "One value a parameter, as the weights."),
            Term(
                "optimizer",
                "Optimizer state",
                chosen.slots * weights,
                0,
                f"{chosen.title} keeps {chosen.sentence}.",
            ),
            Term(
                "saved",
                "Saved activations",
                statistics,
                (summary.saved_bytes - statistics) // summary.batch_size,
                "What autograd keeps of the forward pass for the backward pass: the images, one "
                "tensor a convolution and its ReLU, the pools' outputs and the places of their "
                "maxima, dropout's output and mask.",
            ),
            Term(
                "transients",
                "Transients",
                0,
                summary.largest_pair_bytes // summary.batch_size,
                "The gradients of one layer's output and input, or its activations before they "
                "are saved: the largest such pair.",
            ),
        )
    )


class Moment(NamedTuple):
    """What is alive at one point of a training step, in bytes.

    Attributes:
        phase, layer: where the step is; the layer is "" in the update.
        weights, gradients, optimizer, saved, transients: the terms as far as they exist just then.
    """

    phase: Phase
    layer: str
    weights: int
    gradients: int
    optimizer: int
    saved: int
    transients: int

    @property
    def bytes(self) -> int:
        """All that is alive."""
        return self.weights + self.gradients + self.optimizer + self.saved + self.transients


def step_moments(
    summary: NetworkSummary, optimizer: OptimizerName = "momentum"
) -> tuple[Moment, ...]:
    """A training step in slow motion: every layer forward, every layer backward, the update.

    The step is zero_grad (which frees the gradients), forward, backward, update, with an optimizer
    that has its state already, for `summary.batch_size` images.

    Raises:
        ConfigError: for an optimizer that is not in `OPTIMIZERS`.
    """
    chosen = OPTIMIZERS[_known(optimizer)]
    rows, weights = summary.layers, summary.parameter_bytes
    state = chosen.slots * weights
    sides = [_side_bytes(row, first=not index) for index, row in enumerate(rows)]
    kept = [row.saved_bytes - side for row, side in zip(rows, sides, strict=True)]
    made = [0 if row.kind == "flatten" else row.activation_bytes for row in rows]
    moments: list[Moment] = []
    # The caller holds the images throughout, whether the first layer saves them or not.
    saved = summary.input_bytes
    for index, row in enumerate(rows):
        before = 0 if index == 0 or kept[index - 1] else made[index - 1]
        transients = before + made[index] + sides[index]
        moments.append(Moment("forward", row.name, weights, 0, state, saved, transients))
        saved += kept[index] + sides[index]
    gradients = 0
    for index in range(len(rows) - 1, -1, -1):
        row = rows[index]
        gradients += row.parameters * BYTES
        transients = row.activation_bytes + _reordered_bytes(row)
        if index and made[index]:
            transients += rows[index - 1].activation_bytes
        moments.append(Moment("backward", row.name, weights, gradients, state, saved, transients))
        saved -= sides[index]
        if row.kind in _KEEPS_OUTPUT:
            saved -= kept[index]
        if index and rows[index - 1].kind not in _KEEPS_OUTPUT:
            saved -= kept[index - 1]  # kept for this layer alone
    temporaries = chosen.temporaries * weights
    moments.append(
        Moment("update", "", weights, gradients, state, summary.input_bytes, temporaries)
    )
    return tuple(moments)


def step_peak(summary: NetworkSummary, optimizer: OptimizerName = "momentum") -> Moment:
    """The moment of a training step at which most is alive.

    Raises:
        ConfigError: for an optimizer that is not in `OPTIMIZERS`.
    """
    return max(step_moments(summary, optimizer), key=lambda moment: moment.bytes)


# --- the work of a layer ----------------------------------------------------------------------


class Work(NamedTuple):
    """Floating-point operations (two a MAC) and bytes moved from and to memory, for a batch.

    Counted are multiply-adds only, and every tensor a layer must read or write once: the least
    that it can do, as the roofline model asks.
    """

    flops: int
    bytes: int


def forward_work(row: LayerSummary, batch_size: int) -> Work:
    """What one layer does in the forward pass for a batch."""
    values = volume(row.input_shape) + volume(row.output_shape)
    if row.kind == "flatten":
        values = 0
    return Work(2 * row.macs * batch_size, BYTES * (values * batch_size + row.parameters))


def backward_work(row: LayerSummary, batch_size: int, *, first: bool) -> Work:
    """What one layer does in the backward pass for a batch.

    A layer with weights multiplies twice, for the gradients of its weights and of its input; the
    first layer's input, the images, needs none.
    """
    inputs, outputs = volume(row.input_shape), volume(row.output_shape)
    if row.kind == "flatten":
        return Work(0, 0)
    passes = 1 if first else 2
    if row.macs:
        # Weights: read input and output gradient, write. Input: read weights and gradient, write.
        values = (inputs + outputs) * passes * batch_size + row.parameters * passes
    elif first:
        return Work(0, 0)
    else:
        # Read the output's gradient and what was saved, write the input's.
        values = (2 * outputs + inputs) * batch_size + 2 * row.parameters
    return Work(2 * row.macs * passes * batch_size, BYTES * values)


def update_work(summary: NetworkSummary, optimizer: OptimizerName) -> Work:
    """What the update of the weights moves: weights and state read and written, gradients read."""
    slots = OPTIMIZERS[_known(optimizer)].slots
    return Work(0, summary.parameter_bytes * (3 + 2 * slots))


# --- parts ------------------------------------------------------------------------------------

_KEEPS_OUTPUT = ("relu", "sigmoid")


def _known(optimizer: str) -> OptimizerName:
    choice(optimizer, "optimizer", tuple(OPTIMIZERS), field="optimizer")
    return optimizer  # type: ignore[return-value]


def _weights(summary: NetworkSummary) -> Term:
    return Term(
        "weights",
        "Weights",
        summary.parameter_bytes,
        0,
        f"{summary.total_parameters:,} parameters of {BYTES} bytes, whatever the batch.",
    )


def _largest_inference_pair(summary: NetworkSummary) -> tuple[str, int]:
    """(layer, bytes) of the largest pair of input and output, without the images themselves."""
    sizes = [0, *(row.activation_bytes for row in summary.layers)]
    pairs = [
        (before + (0 if row.kind == "flatten" else row.activation_bytes), row.name)
        for before, row in zip(sizes, summary.layers, strict=False)
    ]
    size, name = max(pairs, key=lambda pair: pair[0])
    return name, size


def _reordered_bytes(row: LayerSummary) -> int:
    """Bytes of the two copies that the backward pass of a k×k convolution makes."""
    if row.kind != "conv" or row.kernel_size == 1:
        return 0
    return 2 * BYTES * row.input_shape[0] * row.output_shape[0] * row.kernel_size**2


def _side_bytes(row: LayerSummary, *, first: bool) -> int:
    """Bytes a layer saves beside activations: places of maxima, a mask, statistics."""
    match row.kind:
        case "max_pool" | "global_max_pool":
            return row.activation_bytes // BYTES * INDEX_BYTES
        case "dropout":
            return 0 if first else row.activation_bytes  # images need no gradient, so no mask
        case "batch_norm":
            return 2 * row.output_shape[0] * BYTES
        case _:
            return 0
