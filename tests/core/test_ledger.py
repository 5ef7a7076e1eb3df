"""The ledger of memory: its terms add up, and a real step holds what the walk through it says."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nin_core import PRESETS, ConfigError, NiNConfig, build_nin, summarize
from nin_core.ledger import (
    OPTIMIZERS,
    OptimizerName,
    backward_work,
    forward_work,
    inference_ledger,
    step_moments,
    step_peak,
    training_ledger,
)
from nin_core.model import memory_layout
from nin_core.summary import MAX_BATCH_SIZE

from .strategies import networks

SLIM, FULL = PRESETS["nin-slim-128"], PRESETS["nin-224"]
optimizers = st.sampled_from(list(OPTIMIZERS))


@settings(max_examples=200, deadline=None)
@given(config=networks(), batch=st.integers(1, 300), optimizer=optimizers)
def test_terms_add_up_and_know_every_batch(
    config: NiNConfig, batch: int, optimizer: OptimizerName
) -> None:
    """A ledger made for one batch tells another batch's bytes as that one's own ledger does."""
    summary = summarize(config, batch)
    slots = OPTIMIZERS[optimizer].slots
    for made_for in (1, batch, 7):
        ledger = training_ledger(summarize(config, made_for), optimizer)
        assert ledger.total(batch) == summary.training_bytes(slots)
        terms = {term.name: term.bytes(batch) for term in ledger.terms}
        assert sum(terms.values()) == ledger.total(batch)
        assert terms["weights"] == terms["gradients"] == summary.parameter_bytes
        assert terms["optimizer"] == slots * summary.parameter_bytes
        assert terms["saved"] == summary.saved_bytes
        answer = inference_ledger(summarize(config, made_for))
        assert answer.total(batch) == inference_ledger(summary).total(batch)
    assert all(term.sentence.endswith(".") for term in (*ledger.terms, *answer.terms))


@settings(max_examples=100, deadline=None)
@given(config=networks(), optimizer=optimizers)
def test_memory_grows_with_the_batch(config: NiNConfig, optimizer: OptimizerName) -> None:
    ledger, answer = (
        training_ledger(summarize(config), optimizer),
        inference_ledger(summarize(config)),
    )
    batches = (1, 2, 3, 8, 64, 65_536)
    for made in (ledger, answer):
        totals = [made.total(batch) for batch in batches]
        assert totals == sorted(set(totals))
    peaks = [step_peak(summarize(config, batch), optimizer).bytes for batch in batches]
    assert peaks == sorted(set(peaks))


@settings(max_examples=100, deadline=None)
@given(config=networks(), available=st.integers(0, 10**9))
def test_the_largest_batch_fits_and_the_next_does_not(config: NiNConfig, available: int) -> None:
    ledger = training_ledger(summarize(config))
    fits = ledger.largest_batch(available)
    assert 0 <= fits <= MAX_BATCH_SIZE
    if fits:
        assert ledger.total(fits) <= available
    if fits < MAX_BATCH_SIZE:
        assert ledger.total(fits + 1) > available


def test_the_tutorials_network_by_hand() -> None:
    """nin-slim-128, batch 1: float32, and 8-byte places for the three poolings and the head."""
    parameters = 10_846
    maps = 3 * (6 * 30**2 + 16 * 14**2 + 24 * 6**2 + 10 * 2**2)  # one a convolution and its ReLU
    pools = 6 * 14**2 + 16 * 6**2  # the third is not kept: dropout needs its mask alone
    places = 8 * (pools + 24 * 2**2 + 10)
    dropout = 2 * 24 * 2**2  # output and mask
    saved = 4 * (128**2 + maps + pools + dropout) + places
    transients = 4 * (128**2 + 6 * 30**2)  # the first convolution
    terms = {t.name: t.bytes(1) for t in training_ledger(summarize(SLIM), "adamw").terms}
    assert terms == {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "optimizer": 8 * parameters,
        "saved": saved,
        "transients": transients,
    }
    terms = {t.name: t.bytes(1) for t in inference_ledger(summarize(SLIM)).terms}
    assert terms == {"weights": 4 * parameters, "batch": 4 * 128**2, "live": 4 * 2 * 6 * 30**2}


def test_a_step_ends_as_it_began() -> None:
    """All that was saved is given back, all gradients are there, and the peak is within bounds."""
    for config in PRESETS.values():
        for optimizer in OPTIMIZERS:
            summary = summarize(config, 4)
            moments = step_moments(summary, optimizer)
            names = [row.name for row in summary.layers]
            assert [m.layer for m in moments] == [*names, *reversed(names), ""]
            first_backward = moments[len(names)]
            assert first_backward.saved == summary.saved_bytes
            after_first = moments[-2]
            # The first layer still needs the images (and a first ReLU its own output).
            assert after_first.saved == summary.input_bytes
            assert moments[-1].gradients == summary.parameter_bytes
            assert all(min(m[2:]) >= 0 for m in moments)
            # In a batch of some size the walk's copies and temporaries do not matter any more.
            many = summarize(config, 64)
            slots = OPTIMIZERS[optimizer].slots
            assert step_peak(many, optimizer).bytes < many.training_bytes(slots)


@settings(max_examples=60, deadline=None)
@given(config=networks(), batch=st.integers(2, 4))
def test_saved_bytes_are_what_autograd_gives_back(config: NiNConfig, batch: int) -> None:
    """The walk's drop from the first moment backward to the last is what the hooks counted."""
    summary = summarize(config, batch)
    model = build_nin(config).train().to(memory_format=memory_layout(config))
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.nbytes():
            kept[storage.data_ptr()] = storage

    shape = (batch, config.in_channels, config.image_size, config.image_size)
    images = torch.rand(shape).contiguous(memory_format=memory_layout(config))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        model(images)
    saved = sum(storage.nbytes() for storage in kept.values())
    moments = step_moments(summary)
    extra = 0 if images.untyped_storage().data_ptr() in kept else summary.input_bytes
    assert moments[len(summary.layers)].saved == saved + extra


@pytest.mark.parametrize(
    ("preset", "batch"), [("nin-slim-128", 16), ("nin-cifar10", 2), ("nin-28", 32)]
)
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_the_peak_of_a_real_step(preset: str, batch: int, optimizer: OptimizerName) -> None:
    """Every allocation of a step, added up: its largest sum is the walk's peak, within 1 %.

    Of a convolution counts what is left after it: with AVX-512 that of nin-slim-128's 11×11 pixels
    takes 2.8 MB of working memory, which is the kernel's own, and with AVX2 none.
    """
    config = PRESETS[preset]
    summary = summarize(config, batch)
    torch.set_num_threads(1)
    model = build_nin(config).train().to(memory_format=memory_layout(config))
    adam = optimizer == "adamw"
    rule = (
        torch.optim.AdamW(model.parameters(), foreach=True)
        if adam
        else torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, foreach=True)
    )
    shape = (batch, config.in_channels, config.image_size, config.image_size)
    images = torch.rand(shape).contiguous(memory_format=memory_layout(config))
    labels = torch.randint(config.num_classes, (batch,))

    def step() -> None:
        rule.zero_grad(set_to_none=True)
        functional.cross_entropy(model(images), labels).backward()
        rule.step()

    step()
    rule.zero_grad(set_to_none=True)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        step()
    assert profile.profiler is not None
    events = profile.profiler.kineto_results.events()
    kernels = [
        (e.start_ns(), e.start_ns() + e.duration_ns())
        for e in events
        if e.name() == "aten::mkldnn_convolution"
    ]
    assert kernels
    changes: dict[int, int] = {}  # by moment; those within a kernel at its end
    for event in events:
        if event.name() == "[memory]":
            moment = event.start_ns()
            ends = [end for start, end in kernels if start <= moment <= end]
            moment = ends[0] if ends else moment
            changes[moment] = changes.get(moment, 0) + event.nbytes()
    alive = most = 0
    for _, change in sorted(changes.items()):
        alive += change
        most = max(most, alive)
    before = (1 + OPTIMIZERS[optimizer].slots) * summary.parameter_bytes + summary.input_bytes
    assert before + most == pytest.approx(step_peak(summary, optimizer).bytes, rel=0.01)


def test_work_of_a_layer() -> None:
    """block1.conv of nin-224 by hand, batch 2: two operations a MAC, every tensor once."""
    row = summarize(FULL).layers[0]
    macs = 54 * 54 * 96 * 121
    assert forward_work(row, 2) == (2 * 2 * macs, 4 * (2 * (224**2 + 96 * 54**2) + 11_712))
    first = backward_work(row, 2, first=True)
    later = backward_work(row, 2, first=False)
    assert first.flops == 2 * 2 * macs
    assert later == (2 * first.flops, 2 * first.bytes)


def test_an_unknown_optimizer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'momentum'") as caught:
        training_ledger(summarize(SLIM), "lion")  # type: ignore[arg-type]
    assert caught.value.suggestion in OPTIMIZERS


def test_ledger_and_machine_need_no_torch() -> None:
    code = (
        "import sys; import nin_core.ledger, nin_core.machine, nin_core.measurements\n"
        "nin_core.machine.known_machine()\n"
        "print([m for m in ('torch', 'streamlit', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
