"""The probe of this computer, what runs get of it, and that settings change no more than bits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from nin_core import PRESETS, build_nin, reporter, tuning, worker
from nin_core.data import load_dataset
from nin_core.datasets import DATASETS
from nin_core.events import StepEvent
from nin_core.processes import this_worker
from nin_core.recipes import RECIPES
from nin_core.records import Run
from nin_core.store import RunStore
from nin_core.training import Training
from nin_core.tuning import Settings, Trial, Tuning, settings_for, threads_beside

NETWORK = PRESETS["nin-28"].with_widths((6, 8, 8))
LARGER = replace(NETWORK, image_size=40)
TRAIN = RECIPES["fast"].configure(NETWORK, subset=640)
SHAPES, FASHION = DATASETS["shapes"], DATASETS["fashion-mnist"]
WIDE, SLIM = PRESETS["nin-224"], PRESETS["nin-slim-128"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A probe leaves PyTorch with another number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, store: RunStore) -> None:
    """Trials as short as they can be; what is found lies beside the test's store."""
    monkeypatch.setattr(tuning, "TRIAL_SECONDS", 0.0)
    assert tuning.path().parent == store.path.parent


def known(network, train, chosen: Settings) -> None:
    tuning._keep(network, train.batch_size, Tuning((Trial(Settings(), 100.0),), chosen))


# --- the probe --------------------------------------------------------------------------------


def test_a_probe_tries_one_choice_at_a_time_and_remembers_what_it_found():
    shares: list[float] = []
    found = tuning.probe(LARGER, TRAIN, SHAPES, cores=2, progress=shares.append)
    assert found is not None
    tried = found.trials
    assert tried[0].settings == Settings(2, parts=2)
    assert len(tried) == 6  # layout, number format, PyTorch's threads, one thread, resizing
    assert shares == [(number + 1) / 6 for number in range(6)]
    assert all(trial.images_per_second > 0 for trial in tried)
    assert found.chosen in [trial.settings for trial in tried]
    assert tuning.known(LARGER, TRAIN.batch_size) == found
    # The same size of network shares it, another size or batch does not.
    assert tuning.known(replace(LARGER, dropout=0.1), TRAIN.batch_size) == found
    assert tuning.known(LARGER, 4 * TRAIN.batch_size) is None
    assert tuning.known(WIDE, TRAIN.batch_size) is None


def test_a_network_of_the_images_size_has_nothing_to_resize_and_one_core_no_second_thread():
    found = tuning.probe(NETWORK, TRAIN, SHAPES, cores=1)
    assert found is not None
    assert len(found.trials) == 3
    assert {trial.settings.threads for trial in found.trials} == {1}


def choices(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> Tuning:
    """What a probe of LARGER makes of steps that take so long; others take a second."""

    def step_timer(network, train, info, batch_size, settings):
        taken = seconds.get(settings.words(), 1.0)
        return lambda: taken

    monkeypatch.setattr("nin_core.trial.step_timer", step_timer)
    found = tuning.probe(LARGER, TRAIN, SHAPES, cores=2)
    assert found is not None
    return found


USUAL = "2 threads, batch in 2 parts, float32, channels last"


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({}, USUAL),
        ({"2 threads, batch in 2 parts, float32, channels first": 0.95}, USUAL),
        (
            {"2 threads, batch in 2 parts, float32, channels first": 0.8},
            "2 threads, batch in 2 parts, float32, channels first",
        ),
        ({"1 thread, float32, channels last": 0.95}, USUAL),
        ({"1 thread, float32, channels last": 0.8}, "1 thread, float32, channels last"),
        ({"2 threads, float32, channels last": 0.8}, "2 threads, float32, channels last"),
        (
            {
                "2 threads, batch in 2 parts, bfloat16, channels last": 0.5,
                "2 threads, bfloat16, channels last": 0.3,
                "2 threads, bfloat16, channels last, resized once": 0.25,
            },
            "2 threads, bfloat16, channels last, resized once",
        ),
    ],
)
def test_another_setting_must_be_clearly_faster(monkeypatch, seconds, chosen):
    assert choices(monkeypatch, seconds).chosen.words() == chosen


def test_the_speed_of_what_was_chosen_is_told(monkeypatch):
    found = choices(monkeypatch, {"2 threads, batch in 2 parts, float32, channels first": 0.5})
    assert found.images_per_second == pytest.approx(2 * found.trials[0].images_per_second)


def test_what_seemed_faster_in_a_quiet_moment_only_is_not_chosen(monkeypatch):
    calls = iter([1.0] * (2 + tuning.LEAST_STEPS) + [0.5] * 100)  # a busy moment, then a quiet one
    monkeypatch.setattr("nin_core.trial.step_timer", lambda *_: lambda: next(calls))
    found = tuning.probe(NETWORK, TRAIN, SHAPES, cores=1)
    assert found is not None
    assert found.chosen == Settings()


def test_a_hopeless_setting_costs_two_steps(monkeypatch):
    steps: list[str] = []

    def step_timer(network, train, info, batch_size, settings):
        def step() -> float:
            steps.append(settings.words())
            return 20.0 if settings.bfloat16 else 1.0

        return step

    monkeypatch.setattr("nin_core.trial.step_timer", step_timer)
    tuning.probe(NETWORK, TRAIN, SHAPES, cores=1)
    assert steps.count("1 thread, bfloat16, channels last") == 2
    assert steps.count("1 thread, float32, channels last") == 2 + tuning.LEAST_STEPS


def test_a_probe_in_the_way_ends_and_keeps_nothing():
    asked = iter([False, False, True])
    assert tuning.probe(NETWORK, TRAIN, SHAPES, should_stop=lambda: next(asked)) is None
    assert tuning.known(NETWORK, TRAIN.batch_size) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {"trials": [], "chosen": {}}}', "{'a': 1}"])
def test_a_damaged_file_is_as_good_as_none(text):
    tuning.path().write_text(text)
    assert tuning.known(NETWORK, TRAIN.batch_size) is None
    known(NETWORK, TRAIN, Settings())
    assert tuning.known(NETWORK, TRAIN.batch_size) is not None


# --- what a run gets --------------------------------------------------------------------------


def get(network, train=None, **facts) -> Settings:
    train = train or RECIPES["fast"].configure(network)
    return settings_for(network, train, FASHION, **({"cores": 8} | facts))


def test_without_a_probe_a_batch_has_a_part_a_core_but_no_tiny_ones():
    assert get(SLIM) == Settings(2, parts=2)  # of 64 images
    assert get(SLIM, RECIPES["fast"].configure(SLIM, batch_size=1024)) == Settings(8, parts=8)
    assert get(WIDE) == Settings(4, parts=4)
    assert get(SLIM, cores=1) == Settings()
    small = {network: RECIPES["fast"].configure(network, batch_size=16) for network in (SLIM, WIDE)}
    assert get(SLIM, small[SLIM]) == Settings()
    assert get(WIDE, small[WIDE]) == Settings(8)  # long steps are worth PyTorch's own threads


def test_what_a_probe_has_found_holds_for_the_next_run():
    found = Settings(8, channels_last=False, bfloat16=True)
    known(SLIM, RECIPES["fast"].configure(SLIM), found)
    assert get(SLIM) == found


@pytest.mark.parametrize("settings", [Settings(8), Settings(8, parts=8), Settings(2, parts=8)])
def test_runs_share_the_cores(settings):
    beside = threads_beside(settings, 8)
    assert [beside(running) for running in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]
    assert threads_beside(Settings(), 8)(1) == 1
    # One that began beside another knows from its past that it can use more.
    assert threads_beside(Settings(4).with_threads(9, 8), 8)(1) == 8


def test_images_are_resized_once_only_where_that_pays_and_fits():
    train = RECIPES["fast"].configure(SLIM, epochs=2)
    known(SLIM, train, Settings(resize_once=True))
    kept = 4 * 60_000 * 128 * 128
    assert get(SLIM, train, free_bytes=8 * kept).resize_once
    assert not get(SLIM, train, free_bytes=8 * kept - 1).resize_once
    assert not get(SLIM, train, free_bytes=None).resize_once
    assert get(SLIM, replace(train, subset=6000), free_bytes=8 * kept // 10).resize_once
    assert not get(SLIM, replace(train, epochs=1), free_bytes=8 * kept).resize_once
    assert not get(SLIM, replace(train, flip=True), free_bytes=8 * kept).resize_once


def test_settings_survive_the_store_and_nonsense_is_refused():
    settings = Settings(3, channels_last=False, bfloat16=True, resize_once=True, parts=3)
    assert Settings.from_json(settings.to_json()) == settings
    changed = settings.with_threads(10, 1).with_threads(20, 3)
    assert Settings.from_json(changed.to_json()) == changed
    for text in ("", "{}x", '{"cores": 3}', "3", '{"thread_changes": [1]}'):
        with pytest.raises(ValueError):
            Settings.from_json(text)


def test_threads_change_at_steps_and_a_later_plan_is_given_up():
    settings = Settings(4).with_threads(10, 2).with_threads(20, 4)
    assert [settings.threads_after(step) for step in (0, 9, 10, 19, 20, 99)] == [4, 4, 2, 2, 4, 4]
    assert settings.with_threads(10, 1).thread_changes == ((10, 1),)
    assert settings.with_threads(15, 1).thread_changes == ((10, 2), (15, 1))
    assert settings.words() == "4 threads since step 21, float32, channels last"


# --- what they do to a training ---------------------------------------------------------------


def trained(network, settings: Settings, **changes):
    torch.set_num_threads(settings.torch_threads(0))
    data = load_dataset("shapes")
    config = RECIPES["fast"].configure(network, subset=320, epochs=2, **changes)
    training = Training(build_nin(network), data, config, network=network, settings=settings)
    events = list(training.events())
    figures = [e.train_loss for e in events if isinstance(e, StepEvent)]
    return figures, events[-1].test_loss, training.state().weights


def test_resizing_once_changes_no_bit():
    usual = trained(LARGER, Settings())
    once = trained(LARGER, Settings(resize_once=True))
    assert usual[:2] == once[:2]
    for name, weight in usual[2].items():
        assert torch.equal(weight, once[2][name])


@pytest.mark.parametrize("settings", [Settings(channels_last=False), Settings(bfloat16=True)])
def test_other_settings_learn_the_same(settings):
    """At a rate so low that other bits do not grow into another path."""
    usual, other = (trained(NETWORK, each, learning_rate=0.003) for each in (Settings(), settings))
    assert usual[0][-1] < 0.95 * usual[0][0]
    assert other[0] == pytest.approx(usual[0], rel=0.02)
    assert other[1] == pytest.approx(usual[1], rel=0.02)
    dtypes = {weight.dtype for weight in other[2].values()}
    assert dtypes == {torch.float32, torch.int64}  # batch norm counts its batches


@pytest.mark.parametrize("batch_norm", [True, False])
def test_parts_learn_the_same_and_threads_change_no_bit(batch_norm):
    network = replace(NETWORK, batch_norm=batch_norm, dropout=0.3)
    changes = {"learning_rate": 0.003, "use_dropout": True, "batch_size": 72}
    usual = trained(network, Settings(), **changes)
    one, two = (trained(network, Settings(threads, parts=3), **changes) for threads in (1, 2))
    assert one[0] == pytest.approx(usual[0], rel=0.05)
    assert one[1] == pytest.approx(usual[1], rel=0.1)
    assert one[:2] == two[:2]
    for name, weight in one[2].items():
        assert torch.equal(weight, two[2][name]), name


def test_the_gradient_of_parts_is_that_of_the_batch():
    """Without batch norm and dropout: to rounding, also of a batch that is not a multiple."""
    network = replace(NETWORK, batch_norm=False, dropout=0.0)
    data, gradients = load_dataset("shapes"), []
    config = RECIPES["fast"].configure(network, batch_size=50)
    for settings in (Settings(), Settings(2, parts=3)):
        training = Training(build_nin(network), data, config, network=network, settings=settings)
        training.prepare()
        loss, right = training._differentiate(data.train_images[:50], data.train_labels[:50])
        gradients.append([loss, right, *(p.grad for p in training._model.parameters())])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-6)


# --- runs -------------------------------------------------------------------------------------


def begun(store: RunStore) -> tuple[int, int]:
    run_id = store.create(NETWORK, TRAIN, "shapes")
    attempt = store.claim(run_id, this_worker())
    assert attempt is not None
    return run_id, attempt


def test_a_run_gets_what_was_found_and_its_checkpoint_says_so(store):
    known(NETWORK, TRAIN, Settings(channels_last=False, bfloat16=True))
    run_id, attempt = begun(store)
    worker.work_on(store, run_id, attempt)
    run = store.get(run_id)
    assert (run.state, run.settings) == (
        "finished",
        Settings(channels_last=False, bfloat16=True),
    )
    info = store.load_checkpoint(run_id).info
    assert (info["dtype"], info["memory_format"]) == ("bfloat16", "contiguous_format")


def test_a_run_gives_threads_up_when_another_joins_and_takes_them_back(store, monkeypatch):
    monkeypatch.setattr(worker, "available_cores", lambda: 2)
    monkeypatch.setattr(reporter, "GROWING_SECONDS", 0.1)
    train = RECIPES["fast"].configure(NETWORK, epochs=500)
    run_id = store.create_at_work(NETWORK, train, "shapes", None, this_worker(), slots=99)
    attempt = store.claim(run_id, this_worker())
    work = threading.Thread(target=worker.work_on, args=(store, run_id, attempt), daemon=True)
    work.start()

    def wait_for(threads: int, changes: int) -> None:
        deadline = time.monotonic() + 120
        while True:
            run = store.get(run_id)
            if run.threads == threads and len(run.settings.thread_changes) == changes:
                return
            assert run.active and time.monotonic() < deadline, (run.error, run.settings)
            time.sleep(0.02)

    while store.get(run_id).step == 0:
        time.sleep(0.02)
    wait_for(2, 0)
    other = store.create_at_work(NETWORK, train, "shapes", None, this_worker(), slots=99)
    wait_for(1, 1)
    store.request(other, "stopped")
    store.release(other, 0)
    wait_for(2, 2)
    store.request(run_id, "stopped")
    work.join(60)
    run, kept = store.get(run_id), store.load_checkpoint(run_id)
    assert run.state == "stopped"
    (given_up, one), (taken_back, two) = run.settings.thread_changes
    assert (one, two) == (1, 2) and 0 < given_up < taken_back <= kept.step
    assert kept.info["threads"] == run.settings.threads_after(kept.step - 1)


def test_a_run_that_began_beside_another_takes_the_cores_when_it_goes_on_alone(store, monkeypatch):
    monkeypatch.setattr(worker, "available_cores", lambda: 2)
    monkeypatch.setattr(reporter, "GROWING_SECONDS", 0.1)
    known(NETWORK, TRAIN, Settings(threads=2))  # shared by PyTorch's own threads
    other = store.create_at_work(NETWORK, TRAIN, "shapes", None, this_worker(), slots=99)
    train = replace(TRAIN, epochs=500)
    run_id = store.create_at_work(NETWORK, train, "shapes", None, this_worker(), slots=99)

    def work() -> threading.Thread:
        attempt = store.claim(run_id, this_worker())
        thread = threading.Thread(target=worker.work_on, args=(store, run_id, attempt))
        thread.start()
        return thread

    def wait_for(condition: Callable[[Run], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition(run := store.get(run_id)):
            assert time.monotonic() < deadline, (run.error, run.settings)
            time.sleep(0.02)

    thread = work()
    wait_for(lambda run: run.step > 0)
    assert store.get(run_id).settings == Settings(threads=2, thread_changes=((0, 1),))
    store.request(run_id, "paused")
    thread.join(60)
    store.release(run_id, store.get(run_id).attempt)
    store.request(other, "stopped")
    store.release(other, 0)
    store.resume(run_id)
    thread = work()
    wait_for(lambda run: run.threads == 2)
    store.request(run_id, "stopped")
    thread.join(60)
    assert [threads for _, threads in store.get(run_id).settings.thread_changes] == [1, 2]


def test_a_run_keeps_its_settings_though_it_begins_anew(store):
    run_id, attempt = begun(store)
    store.note(run_id, attempt, settings=Settings(channels_last=False).to_json())
    known(NETWORK, TRAIN, Settings(bfloat16=True))
    worker.work_on(store, run_id, attempt)
    assert store.get(run_id).settings == Settings(channels_last=False)


def test_settings_of_another_version_are_none(store):
    run_id, attempt = begun(store)
    store.note(run_id, attempt, settings=json.dumps({"warp": 9}))
    assert store.get(run_id).settings is None


def test_a_finished_run_is_followed_by_a_probe_once(store, monkeypatch):
    monkeypatch.delenv("NIN_PROBE")
    run_id, attempt = begun(store)
    worker.work_on(store, run_id, attempt)
    reporter.leave_run(store, run_id, attempt)
    assert tuning.is_wanted(NETWORK, TRAIN.batch_size)
    worker.find_settings(store, run_id, None)
    found = tuning.known(NETWORK, TRAIN.batch_size)
    assert found is not None
    assert not tuning.is_wanted(NETWORK, TRAIN.batch_size)


def test_a_run_in_the_queue_ends_the_probe(store, monkeypatch):
    monkeypatch.delenv("NIN_PROBE")
    run_id, attempt = begun(store)
    worker.work_on(store, run_id, attempt)
    reporter.leave_run(store, run_id, attempt)
    store.create(NETWORK, TRAIN, "shapes")
    worker.find_settings(store, run_id, None)
    assert tuning.known(NETWORK, TRAIN.batch_size) is None
