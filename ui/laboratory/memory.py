"""Memory and time: what the network holds in inference and training, predicted and measured.

Choices made here:

* All predictions are closed form and follow every slider. What is measured runs in a process of
  its own (`nin_core.measurements`), one at a time for the whole server; a result belongs to its
  network, batch size, optimizer and threads, and is there again when they are.
* The batch size is the page's own, the field at its head. The slider here moves that field, in
  powers of two, and follows it.
* Only while a measurement runs does its block draw itself anew.
"""

from __future__ import annotations

import streamlit as st

from nin_core import ConfigError, NetworkSummary
from nin_core.estimate import SECONDS_PER_STEP, seconds_per_image
from nin_core.ledger import (
    OPTIMIZERS,
    Ledger,
    OptimizerName,
    backward_work,
    forward_work,
    inference_ledger,
    step_peak,
    training_ledger,
    update_work,
)
from nin_core.machine import Machine, available_cores, known_machine, memory
from nin_core.measure import PROCESS_BYTES, MeasureRequest, MeasureResult
from nin_core.measurements import Measurement, Measurements
from ui import memory_figures as figures
from ui import numbers
from ui.components import plot
from ui.laboratory import Subject, information

TICK_SECONDS = 0.5
BUSY_LOAD = 0.7  # other processes that want to run, a core, from which on times are doubtful

_BATCH = "architecture:batch"  # the field at the head of the page
_SLIDER = "memory:batch"
_NOTICE = "memory:notice"

# What ticks is never stale, and Streamlit's sign that a script runs would only flicker.
_TICKING = """<style>
.st-key-memory-measured [data-stale="true"] { opacity: 1 !important; }
[data-testid="stStatusWidget"] { display: none; }
</style>"""


def show(subject: Subject) -> None:
    """Draw the view."""
    optimizer = _choices(subject.batch_size)
    network = subject.network
    inference, training = inference_ledger(network), training_ledger(network, optimizer)
    terms(network, inference, training, optimizer)
    scaling(training, network.batch_size)
    measured(subject, inference, training, optimizer)


@st.cache_resource(show_spinner=False)
def measurements() -> Measurements:
    """The measurements of this server, shared by all its sessions."""
    return Measurements()


# --- what is asked ----------------------------------------------------------------------------


def _choices(batch_size: int) -> OptimizerName:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        optimizer = st.selectbox(
            "Optimizer",
            list(OPTIMIZERS),
            index=list(OPTIMIZERS).index("momentum"),
            format_func=lambda name: OPTIMIZERS[name].title,
            key="memory:optimizer",
            persist_state="session",
            width=190,
        )
        # The nearest power of two below, should the field hold another number.
        nearest = 2 ** (batch_size.bit_length() - 1)
        if st.session_state.get(_SLIDER) != nearest:
            st.session_state[_SLIDER] = nearest
        st.select_slider(
            "Drag the batch size",
            figures.BATCHES,
            format_func="{:,}".format,
            key=_SLIDER,
            on_change=_take_batch,
            width=420,
        )
    return optimizer


def _take_batch() -> None:
    """Put the slider's value into the field at the head of the page."""
    st.session_state[_BATCH] = st.session_state[_SLIDER]


# --- terms ------------------------------------------------------------------------------------


def terms(
    network: NetworkSummary, inference: Ledger, training: Ledger, optimizer: OptimizerName
) -> None:
    """Inference and training as bars whose pieces add up, and what each piece is."""
    batch = network.batch_size
    st.subheader("Memory in inference and in training")
    answer, learn = inference.total(batch), training.total(batch)
    images = "one image" if batch == 1 else f"{batch:,} images"
    st.markdown(
        f"Answering for {images} takes **{numbers.size(answer)}**; a training step takes "
        f"**{numbers.size(learn)}**, {learn / answer:.1f} times as much."
    )
    figure, height = figures.bars_figure(inference, training, batch)
    plot(figure, key="memory:bars", height=height)
    st.html(figures.terms_table(inference, training, batch))
    peak = step_peak(network, optimizer)
    where = f"{peak.phase} pass of {peak.layer}" if peak.layer else "update of the weights"
    why = "gradients appear while saved activations are given back"
    if peak.bytes > learn:
        why += ", but while they are computed weights are held more than once"
    information(
        f"The terms of training never exist all at once: {why}. The fullest moment of a step is "
        f"the {where}, with {numbers.size(peak.bytes)}."
    )


# --- against the batch ------------------------------------------------------------------------


def scaling(training: Ledger, batch_size: int) -> None:
    """The terms of training against the batch size, under the memory that is free."""
    st.subheader("Against the batch size")
    log = st.toggle("Logarithmic", True, key="memory:log", persist_state="session")
    found = memory()
    # PyTorch takes its part before the first tensor. In tenths of a GiB, so that it stands still.
    room = None
    if found is not None:
        room = max(int((found.available - PROCESS_BYTES) * 10 / 2**30) * 2**30 // 10, 0)
    figure, height = figures.scaling_figure(training, batch_size, room, log=log)
    plot(figure, key="memory:scaling", height=height)
    if found is None or room is None:
        information("This system does not tell how much memory is free.")
        return
    fits = training.largest_batch(room)
    images = f"**{fits:,}** images" if fits != 1 else "**one** image"
    largest = f"At most {images} fit" if fits else "Not even one image fits"
    st.caption(
        f"{largest} into the {numbers.size(room)} that are free for tensors now (of "
        f"{numbers.size(found.total)}; PyTorch itself is allowed {numbers.size(PROCESS_BYTES)}). "
        "Weights, gradients and optimizer state do not depend on the batch, all else grows with it."
    )


# --- measured ---------------------------------------------------------------------------------


def measured(
    subject: Subject, inference: Ledger, training: Ledger, optimizer: OptimizerName
) -> None:
    """Measure now: a real step beside the prediction, and its layers under the roofline."""
    ticking = measurements().running() is not None
    if ticking:
        st.html(_TICKING)
    with st.container(key="memory-measured"):
        st.fragment(_measured, run_every=TICK_SECONDS if ticking else None)(
            subject, inference, training, optimizer, ticking
        )


def _measured(
    subject: Subject,
    inference: Ledger,
    training: Ledger,
    optimizer: OptimizerName,
    ticking: bool,
) -> None:
    st.subheader("Predicted and measured")
    threads = _threads()
    try:
        request = MeasureRequest(subject.config, subject.batch_size, optimizer, threads)
    except ConfigError as error:
        information(_sentence(error))
        return
    running = measurements().running()
    if running is not None and running.look() != "running":
        running = None  # it has just ended
    found = measurements().find(request)
    _buttons(request, found, running)
    result = found.result if found is not None and found.state == "done" else None
    rows = compare(subject, inference, training, request, result)
    st.html(figures.comparison_table(rows))
    if result is not None:
        _caveats(result)
        _roofline(subject.network, result)
    if ticking != (running is not None):
        st.rerun()  # to begin ticking, or to stop


def _threads() -> int:
    cores = available_cores()
    if cores == 1:
        return 1
    return st.segmented_control(
        "Threads",
        sorted({1, cores}),
        format_func=lambda count: "1 thread" if count == 1 else f"{count} threads",
        default=1,
        required=True,
        key="memory:threads",
        persist_state="session",
        label_visibility="collapsed",
    )


def _buttons(
    request: MeasureRequest, found: Measurement | None, running: Measurement | None
) -> None:
    if running is not None and running.request == request:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(running.done, running.stage + " …", width="stretch")
            st.button("Cancel", icon=":material/close:", on_click=running.cancel)
        return
    done = found is not None and found.state == "done"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Measure again" if done else "Measure now",
            icon=":material/timer:",
            type="secondary" if done else "primary",
            disabled=running is not None,
            on_click=_start,
            args=(request,),
        )
        if running is not None:
            st.caption(
                f"Another network, batch or optimizer is being measured ({running.stage.lower()})."
            )
            st.button("Cancel", icon=":material/close:", on_click=running.cancel)
        elif not done:
            st.caption("Runs this very step in a process of its own, for 10 to 60 seconds.")
    notice = st.session_state.pop(_NOTICE, None)
    if notice is not None:
        st.error(notice)
    elif found is not None and found.state == "failed":
        st.error(found.problem)
    elif found is not None and found.state == "cancelled":
        st.info("The measurement was cancelled.")


def _start(request: MeasureRequest) -> None:
    try:
        measurements().start(request)
    except ConfigError as error:
        st.session_state[_NOTICE] = _sentence(error)


def _sentence(error: ConfigError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def compare(
    subject: Subject,
    inference: Ledger,
    training: Ledger,
    request: MeasureRequest,
    result: MeasureResult | None,
) -> list[figures.Comparison]:
    """The lines of the comparison; without a result its columns wait for one."""
    network, batch = subject.network, subject.batch_size
    peak = step_peak(network, request.optimizer).bytes
    machine = result.machine if result is not None else known_machine(request.threads)
    rows = [
        _bytes_row(
            "Saved activations",
            network.saved_bytes,
            result and result.saved_bytes,
            "counted by saved_tensors_hooks, each storage once",
        ),
        _bytes_row(
            "Peak of a training step",
            peak,
            result and result.peak_bytes,
            "its fullest moment, against what the process grew by: scratch space of the "
            "convolutions and blocks rounded to whole pages come on top",
        ),
        _bytes_row(
            "Peak of inference",
            inference.total(batch),
            result and result.inference_bytes,
            "as above, with dropout and autograd off; a k×k convolution also holds a copy of its "
            "weights in the processor's order, which tells in small batches",
        ),
    ]
    about = SECONDS_PER_STEP + batch * seconds_per_image(subject.config)
    step = result.step if result is not None else None
    rows.append(
        figures.Comparison(
            "Time of a step",
            f"about {figures.milliseconds(about)}",
            figures.milliseconds(step) if step else "–",
            numbers.change(step, about) if step else "–",
            "predicted by constants of another computer's single thread (nin_core.estimate)",
        )
    )
    if machine is not None:
        floor = floor_seconds(network, request.optimizer, machine)
        rows.append(
            figures.Comparison(
                "The least it could take",
                figures.milliseconds(floor),
                figures.milliseconds(step) if step else "–",
                numbers.change(step, floor) if step else "–",
                f"every layer at this machine's measured peak: {_peaks(machine)}",
            )
        )
    if result is not None:
        layers = network.layers
        forward = sum(forward_work(row, batch).flops for row in layers)
        backward = sum(
            backward_work(row, batch, first=not index).flops for index, row in enumerate(layers)
        )
        rows.append(
            figures.Comparison(
                "Forward to backward",
                f"1 : {backward / forward:.2f}",
                f"1 : {result.backward / result.forward:.2f}",
                f"{figures.milliseconds(result.forward)}, {figures.milliseconds(result.backward)}",
                "by operations: backward multiplies twice, for weights and for inputs, in the "
                f"first layer once; the update took {figures.milliseconds(result.update)} more",
            )
        )
    return rows


def _bytes_row(what: str, predicted: int, measured: int | None, why: str) -> figures.Comparison:
    if measured is None:
        return figures.Comparison(what, numbers.size(predicted), "–", "–", why)
    apart = measured - predicted
    sign = "+" if apart > 0 else "−"
    difference = (
        f"{sign}{numbers.size(abs(apart))} ({numbers.change(measured, predicted)})"
        if apart
        else "none, to the byte"
    )
    return figures.Comparison(
        what, numbers.size(predicted), numbers.size(measured), difference, why
    )


def floor_seconds(network: NetworkSummary, optimizer: OptimizerName, machine: Machine) -> float:
    """The roofline's least time for a training step: each layer limited by peak or bandwidth."""
    batch = network.batch_size
    seconds = machine.seconds(*update_work(network, optimizer))
    for index, row in enumerate(network.layers):
        seconds += machine.seconds(*forward_work(row, batch))
        seconds += machine.seconds(*backward_work(row, batch, first=index == 0))
    return seconds


def _peaks(machine: Machine) -> str:
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    return (
        f"{machine.flops_per_second / 1e9:.0f} GFLOP/s in a matrix product, "
        f"{machine.bytes_per_second / 1e9:.0f} GB/s in a copy, {threads}"
    )


def _caveats(result: MeasureResult) -> None:
    threads = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    information(
        f"Medians of {result.timed_steps} steps after {result.warmup_steps} to warm up, {threads}, "
        f"low priority; memory by {result.peak_method}."
    )
    if result.load is not None and result.load > BUSY_LOAD * available_cores():
        information(
            f"The computer was busy ({result.load:.1f} processes wanted {available_cores()} cores "
            "when it began), so times are longer than they need be."
        )


def _roofline(network: NetworkSummary, result: MeasureResult) -> None:
    st.subheader("Each layer under the roofline")
    speeds = figures.layer_speeds(network, result)
    if any(speed.work.flops for speed in speeds):
        figure, height = figures.roofline_figure(speeds, result.machine)
        plot(figure, key="memory:roofline", height=height)
    st.caption(
        f"The roof is this machine's best: {_peaks(result.machine)}. Left of its corner a layer "
        "waits for memory, right of it for arithmetic; how far below the roof it stays is what "
        "its implementation loses."
    )
    with st.expander("Time of each layer"):
        st.html(figures.speeds_table(network, result))
        apart = result.forward + result.backward + result.update
        st.caption(
            f"Layers were timed inside whole steps, which took "
            f"{figures.milliseconds(result.hooked_step)} instead of "
            f"{figures.milliseconds(apart)}: the difference is the clock's and the machine's. "
            "Above 100 % of the roof, a layer's data was still in the cache."
        )
