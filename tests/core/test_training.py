"""Recipes, estimates and `fit`: on toy data in milliseconds, on Fashion-MNIST where it matters."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from nin_core import (
    PRESETS,
    RECIPES,
    BlockConfig,
    ConfigError,
    NiNConfig,
    PoolConfig,
    TrainConfig,
    build_nin,
    fit,
    summarize,
)
from nin_core.admission import predict_bytes
from nin_core.checkpoints import pack, unpack
from nin_core.data import Dataset, prepare
from nin_core.diagnosis import Evaluation, diagnose, evaluate
from nin_core.estimate import (
    event_interval,
    measured_speed,
    predict_seconds,
    seconds_per_image,
    steps_per_epoch,
)
from nin_core.events import EpochEvent, StepEvent
from nin_core.initialization import initialize_unit_variance
from nin_core.inputs import Inputs
from nin_core.model import memory_layout
from nin_core.training import DivergedError, Training
from nin_core.tuning import Settings

from .strategies import networks

SLIM = PRESETS["nin-slim-128"]


def toy_network(**changes: object) -> NiNConfig:
    """Two blocks on 1×12×12, three classes, in the tutorial's manner: ReLU last, dropout."""
    network = NiNConfig(
        in_channels=1,
        image_size=12,
        num_classes=3,
        blocks=(
            BlockConfig((6, 6), kernel_size=3, padding=1, pool=PoolConfig(2, 2)),
            BlockConfig((8, 3), kernel_size=3, padding=1),
        ),
    )
    return replace(network, **changes)


def toy_dataset(train: int = 300, test: int = 90, classes: int = 3) -> Dataset:
    """Noise with a bright row at the top, a bright column at the left, or neither."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % classes
        images = torch.randint(0, 120, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)
        images[labels == 0, :, 2] = 255
        images[labels == 1, :, :, 2] = 255
        return images, labels

    train_images, train_labels = draw(train)
    test_images, test_labels = draw(test)
    names = tuple(f"class {label}" for label in range(classes))
    return Dataset(
        "toy",
        "Toy",
        train_images,
        train_labels,
        test_images,
        test_labels,
        names,
        (0.3,),
        (0.3,),
        True,
        "",
    )


def run(network: NiNConfig, config: TrainConfig, dataset: Dataset | None = None):
    model = build_nin(network)
    events = list(fit(model, dataset or toy_dataset(), config, network=network, device="cpu"))
    return model, events


def without_clock(event: StepEvent | EpochEvent) -> dict[str, object]:
    return asdict(event) | {"seconds": 0, "examples_per_second": 0}


# --- recipes and estimates ---------------------------------------------------------------------


def test_the_tutorial_recipe_is_the_tutorials():
    config = RECIPES["tutorial"].configure(SLIM)
    assert (config.learning_rate, config.batch_size, config.epochs) == (0.1, 64, 10)
    assert (config.optimizer, config.momentum, config.schedule) == ("sgd", 0.0, "constant")
    assert (config.initialization, config.standardize, config.use_dropout) == (
        "xavier",
        False,
        True,
    )


def test_fast_fits_itself_to_width_and_head():
    slim, average, large = (
        RECIPES["fast"].configure(network)
        for network in (SLIM, replace(SLIM, global_pool="avg"), PRESETS["nin-224"])
    )
    assert (slim.optimizer, average.optimizer, large.optimizer) == ("sgd", "adamw", "sgd")
    assert large.learning_rate < slim.learning_rate / 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_configuration_survives_json(recipe):
    config = RECIPES[recipe].configure(SLIM, epochs=3, subset=1000, seed=7)
    assert (config.epochs, config.subset, config.seed, config.recipe) == (3, 1000, 7, recipe)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("optimizer", "lion"),
        ("momentum", 1.0),
        ("schedule", "step"),
        ("warmup", 1.0),
        ("clip_norm", -1.0),
        ("initialization", "zeros"),
        ("standardize", 1),
        ("subset", 0),
        ("seed", -1),
        ("recipe", "none"),
        ("decay_biases", 0),
        ("label_smoothing", 1.0),
        ("flip", "left"),
        ("shift", -1),
    ],
)
def test_a_bad_value_is_named_with_one_that_works(field, value):
    with pytest.raises(ConfigError) as caught:
        RECIPES["fast"].configure(SLIM, **{field: value})
    assert caught.value.field == field
    RECIPES["fast"].configure(SLIM, **{field: caught.value.suggestion})


def test_a_run_of_a_version_without_augmentation_is_read_as_it_trained():
    values = RECIPES["fast"].configure(SLIM).to_dict()
    newer = {"decay_biases": True, "label_smoothing": 0.0, "flip": False, "shift": 0}
    assert {name: values.pop(name) for name in newer} == newer
    assert TrainConfig.from_dict(values) == RECIPES["fast"].configure(SLIM)


def test_best_fits_itself_to_batch_norm_data_and_its_size():
    normed = RECIPES["best"].configure(PRESETS["nin-28-best"])
    plain = RECIPES["best"].configure(SLIM, train_size=30_000, mirrors=False)
    assert summarize(PRESETS["nin-28-best"]).total_parameters <= 250_000
    assert (normed.flip, plain.flip) == (True, False), "digits are not mirrored"
    assert plain.epochs == 2 * normed.epochs
    assert plain.learning_rate == RECIPES["fast"].configure(SLIM).learning_rate
    assert normed.clip_norm == 0 < plain.clip_norm, "without batch norm maps must stay alive"


def test_smoothing_changes_the_step_but_not_what_the_loss_means():
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=1, batch_size=300)
    (plain, first), (smooth, second) = (
        run(network, replace(config, label_smoothing=amount)) for amount in (0.0, 0.5)
    )
    assert first[0].train_loss == second[0].train_loss, "of the same first batch"
    assert not all(map(torch.equal, plain.parameters(), smooth.parameters()))


def test_unknown_and_missing_fields_are_refused():
    with pytest.raises(ConfigError, match="no field 'lr'"):
        RECIPES["fast"].configure(SLIM, lr=0.1)
    values = RECIPES["fast"].configure(SLIM).to_dict()
    del values["epochs"]
    with pytest.raises(ConfigError, match="needs epochs"):
        TrainConfig.from_dict(values)
    with pytest.raises(ConfigError, match="nesterov"):
        RECIPES["tutorial"].configure(SLIM, nesterov=True)


def test_steps_cover_all_images():
    config = RECIPES["tutorial"].configure(SLIM)
    assert steps_per_epoch(config, 60_000) == 938
    assert steps_per_epoch(replace(config, subset=640), 60_000) == 10
    assert steps_per_epoch(config, 65) == 1  # the lone last image joins the batch before it
    assert steps_per_epoch(config, 1) == 1


def test_predictions_grow_with_the_work():
    fast = RECIPES["fast"].configure(SLIM)
    sizes = {"train_size": 60_000, "test_size": 10_000}
    seconds = predict_seconds(SLIM, fast, **sizes)
    assert predict_seconds(SLIM, replace(fast, epochs=2), **sizes) == pytest.approx(2 * seconds)
    assert predict_seconds(SLIM, fast, **sizes, speed=2.0) == pytest.approx(seconds / 2)
    assert predict_seconds(SLIM, replace(fast, subset=600), **sizes) < seconds / 10
    assert predict_seconds(PRESETS["nin-224"], fast, **sizes) > 20 * seconds
    batch = summarize(SLIM, fast.batch_size)
    memory = predict_bytes(SLIM, fast, "fashion-mnist")
    assert memory > batch.training_bytes(1)
    # Where the steps, not the tests or the start, take the most.
    large = replace(fast, batch_size=256)
    plain = replace(large, momentum=0.0, nesterov=False)
    assert memory < predict_bytes(SLIM, plain, "fashion-mnist")
    assert predict_bytes(SLIM, plain, "fashion-mnist") < predict_bytes(SLIM, large, "fashion-mnist")


def test_speed_is_measured_by_earlier_runs():
    assert measured_speed([]) is None
    expected = 1 / seconds_per_image(SLIM)
    assert measured_speed([(SLIM, 2 * expected), (SLIM, 0.0)]) == pytest.approx(2.0)


def test_reports_are_rarer_for_cheap_steps():
    assert event_interval(PRESETS["nin-224"], 64) == 1
    assert event_interval(SLIM, 64) > 5


# --- the start ---------------------------------------------------------------------------------


def test_unit_variance_holds_at_every_convolution():
    network = replace(SLIM, dropout=0.0)
    model = build_nin(network)
    inputs = torch.randn(64, 1, 128, 128)
    initialize_unit_variance(model, inputs, final_relu=True)
    outputs: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    logits = model(inputs)
    for output in outputs:
        std, mean = torch.std_mean(output, dim=(0, 2, 3), correction=0)
        lift = 5.0 if output is outputs[-1] else 0.0
        torch.testing.assert_close(std, torch.ones_like(std), rtol=1e-3, atol=0)
        torch.testing.assert_close(mean, torch.full_like(mean, lift), rtol=0, atol=1e-3)
    assert (logits > 0).all()


@pytest.mark.parametrize(("channels", "stride"), [(1, 2), (3, 2), (4, 3), (7, 2)])
def test_a_strided_1x1_convolution_of_few_channels_has_its_gradient(channels, stride):
    """In the layout of the other networks oneDNN's is wrong, or kills the process, with AVX2."""
    first = BlockConfig(channels=(8, 4), kernel_size=1, stride=stride, padding=0, pool=None)
    last = BlockConfig(channels=(6, 5), kernel_size=3, stride=1, padding=1, pool=None)
    network = NiNConfig(
        in_channels=channels, image_size=36, num_classes=5, blocks=(first, last), dropout=0.0
    )
    layout = memory_layout(network)
    torch.manual_seed(0)
    model = build_nin(network).to(memory_format=layout)
    exact = build_nin(network).double()
    exact.load_state_dict(model.state_dict())
    for _ in range(30):
        images = torch.rand(12, channels, 36, 36)
        labels = torch.arange(12) % 5
        for net, inputs in ((model, images.contiguous(memory_format=layout)), (exact, images)):
            net.zero_grad()
            inputs = inputs.to(next(net.parameters()).dtype)
            functional.cross_entropy(net(inputs), labels).backward()
        for mine, theirs in zip(model.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6)


def test_every_preset_trains_in_the_faster_layout():
    assert {memory_layout(network) for network in PRESETS.values()} == {torch.channels_last}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_any_network_starts_finite_and_takes_a_step(network):
    classes = network.num_classes
    generator = torch.Generator().manual_seed(1)
    shape = (24, network.in_channels, 9, 9)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.arange(24) % classes
    channels = network.in_channels
    dataset = replace(
        toy_dataset(),
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        class_names=tuple(map(str, range(classes))),
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
    )
    config = RECIPES["fast"].configure(network, batch_size=12)
    _, events = run(network, config, dataset)
    assert isinstance(events[-1], EpochEvent)
    assert math.isfinite(events[-1].test_loss)


def test_a_blank_batch_has_no_scale_but_no_harm():
    model = build_nin(toy_network())
    initialize_unit_variance(model, torch.zeros(8, 1, 12, 12), final_relu=True)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_xavier_stays_within_its_bound():
    network = toy_network()
    config = RECIPES["tutorial"].configure(network, epochs=1, learning_rate=1e-6)
    model, _ = run(network, config)
    weight = model.block1.conv.weight
    bound = math.sqrt(6 / (9 * 1 + 9 * 6))
    assert 0.7 * bound < weight.abs().max() <= bound + 1e-4


# --- fit ---------------------------------------------------------------------------------------


def test_events_come_in_order_and_add_up():
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=2, batch_size=32)
    _, events = run(network, config)
    steps = [event for event in events if isinstance(event, StepEvent)]
    epochs = [event for event in events if isinstance(event, EpochEvent)]
    assert [event.epoch for event in epochs] == [1, 2]
    assert [event.step for event in epochs] == [10, 20]
    assert steps[0].step == 1
    assert isinstance(events[-1], EpochEvent) and events[-1].step == events[-1].total_steps == 20
    assert [event.step for event in events] == sorted(event.step for event in events)
    assert all(0 <= event.train_accuracy <= 1 for event in events)
    assert all(event.examples_per_second > 0 for event in events)
    assert sorted(event.seconds for event in events) == [event.seconds for event in events]
    rates = [event.learning_rate for event in steps]
    assert max(rates) <= config.learning_rate and 0 < rates[-1] < max(rates)


def test_fit_learns_and_repeats_itself():
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=4, batch_size=16, seed=3)
    first_model, first = run(network, config)
    torch.rand(5)  # whatever drew from the global generator before
    second_model, second = run(network, config)
    assert first[-1].test_accuracy > 0.9
    assert list(map(without_clock, first)) == list(map(without_clock, second))
    for left, right in zip(first_model.parameters(), second_model.parameters(), strict=True):
        assert torch.equal(left, right)
    _, other = run(network, replace(config, seed=4))
    assert other[0].train_loss != first[0].train_loss


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("global_pool", ["max", "avg"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_head_learns(optimizer, global_pool, batch_norm):
    network = toy_network(global_pool=global_pool, batch_norm=batch_norm)
    rate = {"sgd": 0.05, "adamw": 0.005}[optimizer]
    config = RECIPES["fast"].configure(
        network,
        epochs=4,
        batch_size=16,
        optimizer=optimizer,
        nesterov=optimizer == "sgd",
        learning_rate=rate,
    )
    data = toy_dataset(train=600)
    model, events = run(network, config, data)
    assert events[-1].test_accuracy > 0.8
    inputs = Inputs.of(network, data, config)
    assert diagnose(model, data.test_images, data.test_labels, inputs) is None


def test_a_tutorial_step_is_plain_gradient_descent():
    network = toy_network(dropout=0.0)
    data = toy_dataset(train=64)
    model = build_nin(network)
    expected = build_nin(network)
    expected.load_state_dict(model.state_dict())
    loss = functional.cross_entropy(expected(data.train_images / 255), data.train_labels)
    loss.backward()
    config = RECIPES["tutorial"].configure(network, epochs=1)
    events = list(fit(model, data, config, network=network, device="cpu", initialize=False))
    assert events[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    for got, start in zip(model.parameters(), expected.parameters(), strict=True):
        wanted = start - 0.1 * start.grad
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "optimizer", "batch_norm", "computed"),
    [
        ("fast", "sgd", True, Settings()),
        ("fast", "sgd", False, Settings()),
        ("fast", "adamw", False, Settings()),
        ("best", "sgd", True, Settings()),
        ("best", "adamw", False, Settings()),
        ("best", "sgd", True, Settings(2, parts=3)),
    ],
)
def test_a_training_that_goes_on_is_the_one_that_never_stopped(
    recipe: str, optimizer: str, batch_norm: bool, computed: Settings
) -> None:
    """From the state after every single step, through bytes: equal events, equal weights."""
    network = toy_network(batch_norm=batch_norm, dropout=0.4)
    momentum = {"momentum": 0.9, "nesterov": optimizer == "sgd", "optimizer": optimizer}
    if recipe == "best":
        momentum |= {"shift": 2, "label_smoothing": 0.1}
    config = RECIPES[recipe].configure(
        network, epochs=2, batch_size=50, use_dropout=True, **momentum
    )

    def training(**more: object) -> tuple[nn.Module, Training]:
        model = build_nin(network)
        facts = {"network": network, "device": "cpu", "settings": computed}
        return model, Training(model, toy_dataset(), config, **facts, **more)

    states: list[bytes] = []
    model, whole = training()
    take_step = whole.take_step

    def take_and_keep(*batch: object) -> None:
        take_step(*batch)
        states.append(pack(whole.state()))

    whole.take_step = take_and_keep
    events = [without_clock(event) for event in whole.events()]
    assert len(states) == whole.total_steps == 12
    states.append(pack(whole.state()))
    assert [unpack(blob).event_due for blob in states[:2]] == [True, whole._interval == 1]

    for blob in states:
        state = unpack(blob)
        again, rest = training(state=state)
        tail = [without_clock(event) for event in rest.events()]
        done = sum(
            event["step"] < state.step
            or (event["step"] == state.step and not state.event_due and "test_examples" in event)
            or (event["step"] == state.step and state.epoch_ended)
            for event in events
        )
        assert tail == events[done:]
        for name, value in model.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name


def test_a_stop_in_the_last_test_leaves_the_last_epoch_to_be_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole test set has been answered, the sample for the dead channels has not."""
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=1, batch_size=50)
    stop = False
    facts = {"network": network, "device": "cpu", "should_stop": lambda: stop}
    training = Training(build_nin(network), toy_dataset(), config, **facts)
    test = training._test

    def test_and_stop(images: torch.Tensor, labels: torch.Tensor) -> Evaluation:
        nonlocal stop
        found = test(images, labels)
        stop = training.step == training.total_steps and images is not training._test_set[0]
        return found

    monkeypatch.setattr(training, "_test", test_and_stop)
    assert not any(isinstance(event, EpochEvent) for event in training.events())
    assert not training.ended
    state, stop = training.state(), False
    rest = Training(build_nin(network), toy_dataset(), config, state=state, **facts)
    (event,) = rest.events()
    assert isinstance(event, EpochEvent)
    assert rest.ended and rest.tested.accuracy == event.test_accuracy
    done = Training(build_nin(network), toy_dataset(), config, state=rest.state(), **facts)
    assert done.ended and list(done.events()) == []


def test_an_event_is_told_before_a_state_counts_it() -> None:
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=2, batch_size=50)
    told: list[object] = []

    def tell(event: object) -> None:
        assert training._lock.locked(), "no state can be taken meanwhile"
        told.append(event)

    facts = {"network": network, "device": "cpu", "on_event": tell}
    training = Training(build_nin(network), toy_dataset(), config, **facts)
    for event in training.events():
        assert told[-1] is event
        state = training.state()
        assert not state.event_due
        assert state.epoch_ended == isinstance(event, EpochEvent)
    assert len(told) > 2


@pytest.mark.parametrize("recipe", ["fast", "tutorial"])
def test_a_rate_changed_on_the_way_is_as_if_it_had_been_planned(recipe: str) -> None:
    """The recorded change, from the start or from a state before it: the same to the bit."""
    network = toy_network()
    config = RECIPES[recipe].configure(network, epochs=2, batch_size=50)
    recorded: list[tuple[int, float]] = []

    def training(config: TrainConfig, **more: object) -> tuple[nn.Module, Training]:
        model = build_nin(network)
        return model, Training(model, toy_dataset(), config, network=network, device="cpu", **more)

    model, changed = training(config, on_rate=lambda *change: recorded.append(change))
    before, events = None, []
    for event in changed.events():
        events.append(without_clock(event))
        if event.step == 1:
            before = pack(changed.state())
        if isinstance(event, EpochEvent) and event.epoch == 1:
            changed.change_rate(0.004)
    assert recorded == [(6, 0.004)]
    planned = config.with_rate(6, 0.004)
    assert TrainConfig.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned
    for more in ({}, {"state": unpack(before)}):
        again, rest = training(planned, **more)
        tail = [without_clock(event) for event in rest.events()]
        assert tail == events[-len(tail) :]
        for name, value in model.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name
    # The cycle goes on: each later rate is what it would have been, in proportion.
    factor = 0.004 / config.learning_rate
    plain = [event.learning_rate for event in training(config)[1].events()]
    rates = [event["learning_rate"] for event in events]
    steps = [event["step"] for event in events]
    expected = [r * (factor if step > 6 else 1) for r, step in zip(plain, steps, strict=True)]
    assert rates == pytest.approx(expected)


def test_a_twin_with_other_batches_changes_its_rate_after_as_many_images() -> None:
    config = RECIPES["fast"].configure(toy_network(), batch_size=64)
    config = config.with_rate(10, 0.004).with_rate(11, 0.003).with_rate(100, 0.002)
    assert config.varied(batch_size=32).rate_changes == ((20, 0.004), (22, 0.003), (200, 0.002))
    # Two that come after the same step: the later one counts.
    assert config.varied(batch_size=256).rate_changes == ((2, 0.004), (3, 0.003), (25, 0.002))
    assert config.varied(batch_size=1024).rate_changes == ((1, 0.003), (6, 0.002))
    assert config.varied(seed=3).rate_changes == config.rate_changes
    with pytest.raises(ConfigError, match="batch_size"):
        config.varied(batch_size=0)


def test_a_start_is_made_with_the_threads_of_the_first_step() -> None:
    """A run that begins anew makes its weights with these; another share of the cores waits."""
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=1, batch_size=50)
    usual, recorded = torch.get_num_threads(), []
    facts = {"network": network, "device": "cpu", "on_threads": recorded.append}
    try:
        torch.set_num_threads(2)
        training = Training(
            build_nin(network), toy_dataset(), config, settings=Settings(threads=2), **facts
        )
        training.change_threads(1)
        assert list(training.events())
    finally:
        torch.set_num_threads(usual)
    assert [settings.thread_changes for settings in recorded] == [((1, 1),)]


def test_threads_changed_on_the_way_are_as_if_they_had_been_planned() -> None:
    """The recorded changes, from the start or from a state before them: the same to the bit."""
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=3, batch_size=50)
    usual = torch.get_num_threads()
    used: list[int] = []
    recorded: list[Settings] = []

    def training(settings: Settings, **more: object) -> tuple[nn.Module, Training]:
        model = build_nin(network)
        model.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
        data = toy_dataset()
        facts = {"network": network, "device": "cpu", "settings": settings}
        return model, Training(model, data, config, **facts, **more)

    try:
        torch.set_num_threads(2)
        model, changed = training(Settings(threads=2), on_threads=recorded.append)
        kept, events = [], []
        for event in changed.events():
            events.append(without_clock(event))
            # The second is before the test of the first epoch, after which the threads change.
            if event.step == 1 or (event.step == 6 and not isinstance(event, EpochEvent)):
                kept.append({"state": unpack(pack(changed.state()))})
            if isinstance(event, EpochEvent):
                changed.change_threads(1 if event.epoch == 1 else 2)
        planned = Settings(threads=2).with_threads(6, 1).with_threads(12, 2)
        assert recorded == [planned.with_threads(6, 1), planned]
        assert changed.settings == planned
        assert 1 in used and used[0] == used[-1] == 2
        assert len(kept) == 2
        for more in ({}, *kept):
            once, used = used, []
            again, rest = training(planned, **more)
            rest.change_threads(7)  # asked for now, but what was recorded is to be repeated first
            tail = []
            for event in rest.events():
                tail.append(without_clock(event))
                if event.step == 12:
                    rest.change_threads(2)
            assert tail == events[-len(tail) :]
            assert used == once[-len(used) :]
            for name, value in model.state_dict().items():
                assert torch.equal(value, again.state_dict()[name]), name
            used = once
    finally:
        torch.set_num_threads(usual)


def test_added_epochs_have_a_cycle_of_their_own() -> None:
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=2, batch_size=50)
    first = Training(build_nin(network), toy_dataset(), config, network=network, device="cpu")
    rates = [event.learning_rate for event in first.events() if isinstance(event, EpochEvent)]
    more = config.extended(2)
    assert TrainConfig.from_dict(json.loads(json.dumps(more.to_dict()))) == more
    second = Training(
        build_nin(network),
        toy_dataset(),
        more,
        network=network,
        device="cpu",
        state=unpack(pack(first.state())),
    )
    events = [event for event in second.events() if isinstance(event, EpochEvent)]
    assert [event.epoch for event in events] == [3, 4]
    assert [event.learning_rate for event in events] == rates
    assert events[-1].step == events[-1].total_steps == 24
    with pytest.raises(ConfigError, match="must be between 1 and"):
        config.extended(0)
    with pytest.raises(ConfigError, match="must be between 1 and"):
        config.extended(999)


def test_a_state_of_another_network_is_refused() -> None:
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=1)
    training = Training(build_nin(network), toy_dataset(), config, network=network, device="cpu")
    assert training.state() is None
    list(training.events())
    state = training.state()
    wider = toy_network(
        blocks=(network.blocks[0], BlockConfig((9, 3), kernel_size=3, padding=1)),
    )
    with pytest.raises(ConfigError, match="starting a new run would work"):
        Training(build_nin(wider), toy_dataset(), config, network=wider, device="cpu", state=state)
    with pytest.raises(ConfigError, match="holds no training"):
        unpack(save(state.weights))
    with pytest.raises(ConfigError, match="holds no training"):
        unpack(b"nothing of the kind")


def test_stopping_ends_between_steps():
    network = toy_network()
    config = RECIPES["fast"].configure(network, epochs=50)
    model = build_nin(network)
    calls = iter(range(10**6))
    events = list(
        fit(
            model,
            toy_dataset(),
            config,
            network=network,
            device="cpu",
            should_stop=lambda: next(calls) >= 3,
        )
    )
    assert events and events[-1].step < 10
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_subset_trains_on_that_many_images():
    network = toy_network()
    config = RECIPES["fast"].configure(network, batch_size=16, subset=48)
    _, events = run(network, config)
    assert events[-1].total_steps == 3


def test_a_lone_last_image_joins_a_batch():
    network = toy_network(batch_norm=True)
    config = RECIPES["fast"].configure(network, batch_size=8, subset=17)
    _, events = run(network, config)
    assert events[-1].total_steps == 2


def test_interim_tests_are_balanced_estimates():
    network = toy_network()
    config = RECIPES["fast"].configure(network, batch_size=1)
    model = build_nin(network)
    data = toy_dataset(train=800, test=90)
    tested = [
        event
        for event in fit(model, data, config, network=network, device="cpu")
        if isinstance(event, StepEvent) and event.test_examples is not None
    ]
    assert tested
    assert all(event.test_examples % 3 == 0 for event in tested)
    assert all(0 <= event.test_accuracy <= 1 for event in tested)


def test_dropout_is_only_used_where_the_recipe_says_so():
    network = toy_network(dropout=0.9)
    data = toy_dataset(train=64)
    for use_dropout in (False, True):
        model = build_nin(network)
        modes = set()
        model.dropout.register_forward_hook(
            lambda module, _inputs, _output, modes=modes: modes.add(module.training)
        )
        config = RECIPES["fast"].configure(network, epochs=1, use_dropout=use_dropout)
        list(fit(model, data, config, network=network, device="cpu"))
        assert modes == ({False, True} if use_dropout else {False})


@pytest.mark.parametrize(
    ("weight", "said"), [(1e30, "after step .* is too high"), (3e38, "weights start too large")]
)
def test_a_diverging_run_says_what_to_change(weight, said):
    network = toy_network(final_relu=False)
    config = RECIPES["tutorial"].configure(
        network, learning_rate=10.0, momentum=0.99, epochs=200, batch_size=8
    )
    torch.manual_seed(0)  # from other weights it may die instead
    model = build_nin(network)
    nn.init.constant_(model.block1.conv.weight, weight)
    with pytest.raises(DivergedError, match=said):
        list(fit(model, toy_dataset(), config, network=network, device="cpu", initialize=False))


def test_what_does_not_go_together_is_refused():
    network = toy_network()
    fast = RECIPES["fast"].configure(network)
    with pytest.raises(ConfigError, match="4 classes"):
        next(fit(build_nin(network), toy_dataset(classes=4), fast, network=network))
    normed = toy_network(batch_norm=True)
    with pytest.raises(ConfigError, match="at least 2 images"):
        next(fit(build_nin(normed), toy_dataset(), replace(fast, batch_size=1), network=normed))


# --- evaluation and diagnosis ------------------------------------------------------------------


def measure(model: nn.Module, network: NiNConfig, **changes: object):
    data = toy_dataset()
    return evaluate(
        model,
        data.test_images,
        data.test_labels,
        Inputs(network, data.mean, data.std),
        **changes,
    )


def test_evaluation_is_in_eval_mode_and_restores_every_mode():
    network = toy_network(batch_norm=True)
    model = build_nin(network).train()
    model.dropout.eval()
    before = [module.training for module in model.modules()]
    statistics = model.block1.bn.running_mean.clone()
    first, second = measure(model, network), measure(model, network, batch_size=7)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model.block1.bn.running_mean, statistics)
    assert first.logits.shape == (90, 3)
    torch.testing.assert_close(first.logits, second.logits)
    assert first.accuracy == second.accuracy


def test_evaluation_can_be_stopped():
    network = toy_network()
    calls = iter([False, False, True])
    part = measure(build_nin(network), network, batch_size=10, should_stop=lambda: next(calls))
    assert len(part.logits) == 20 and 0 <= part.accuracy <= 1
    none = measure(build_nin(network), network, should_stop=lambda: True)
    assert len(none.logits) == 0 and math.isnan(none.loss)


def test_dead_class_maps_are_counted_and_explained():
    network = toy_network()
    model = build_nin(network)
    data = toy_dataset()
    last = model.block2.conv1x1_1
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-1.0)
    probe = data.test_images, data.test_labels, Inputs(network, data.mean, data.std)
    found = diagnose(model, *probe)
    assert found is not None
    assert (found.dead_class_maps, found.num_classes, found.logit_spread) == (3, 3, 0.0)
    assert "3 of 3 class maps are zero" in found.sentence and "1.099" in found.sentence
    assert "the others" not in found.sentence
    with torch.no_grad():
        last.bias.copy_(torch.tensor([-1.0, 9.0, 9.0]))  # the same for every image, and wrong
    found = diagnose(model, *probe)
    assert found is not None
    assert found.sentence.startswith(
        "1 of 3 class maps is zero for every probe image, and the loss"
    )
    assert "is above ln(3) = 1.099" in found.sentence and "sits at" not in found.sentence
    with torch.no_grad():
        last.bias.copy_(torch.tensor([-1.0, 0.01, 0.01]))
    found = diagnose(model, *probe)
    assert found is not None
    assert "and the others hardly tell images apart, so the loss sits at ln(3)" in found.sentence
    with torch.no_grad():
        last.bias.copy_(torch.tensor([1.0, 1.0, 1.0]))
    found = diagnose(model, *probe)
    assert found is not None and found.dead_class_maps == 0
    with torch.no_grad():
        last.bias.fill_(math.nan)
    found = diagnose(model, *probe)
    assert found is not None and "no longer finite" in found.sentence


@pytest.mark.parametrize("bias", [-1.0, 1.0, math.nan])
def test_nobody_is_told_to_take_the_recipe_that_was_taken(bias):
    network = toy_network()
    model = build_nin(network)
    data = toy_dataset()
    with torch.no_grad():
        model.block2.conv1x1_1.weight.zero_()
        model.block2.conv1x1_1.bias.fill_(bias)
    probe = data.test_images, data.test_labels, Inputs(network, data.mean, data.std)
    for recipe in ("tutorial", "fast"):
        found = diagnose(model, *probe, recipe=recipe)
        assert found is not None
        assert ("the fast recipe" in found.sentence) == (recipe != "fast")


@pytest.mark.parametrize(("side", "size"), [(28, 128), (28, 224), (32, 20)])
def test_resizing_equals_bilinear_interpolation(side, size):
    images = torch.randint(0, 256, (3, 1, side, side), dtype=torch.uint8)
    got = prepare(images, image_size=size, in_channels=1, mean=(0.3,), std=(0.4,))
    standardised = (images / 255 - 0.3) / 0.4
    wanted = functional.interpolate(standardised, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("global_pool", ["max", "avg"])
def test_the_tutorials_own_network_learns_fashion_mnist(fashion_mnist, global_pool):
    network = replace(SLIM, global_pool=global_pool)
    config = RECIPES["fast"].configure(network, subset=12_000, seed=1)
    model, events = run(network, config, fashion_mnist)
    assert events[-1].test_accuracy > 0.6
    inputs = Inputs.of(network, fashion_mnist, config)
    probe = fashion_mnist.test_images[:300], fashion_mnist.test_labels[:300]
    assert diagnose(model, *probe, inputs) is None
