"""Pinned networks: kept by name in the run store's database, whatever its age."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from nin_core import PRESETS
from nin_core.pins import Pin, Pins
from nin_core.store import RunStore, StoreError
from nin_core.tables import MAX_PIN_NAME

SLIM, FULL = PRESETS["nin-slim-128"], PRESETS["nin-224"]


@pytest.fixture
def pins(store: RunStore) -> Pins:
    return Pins(store.database)


def test_pins_come_back_whole_in_order_and_after_a_restart(store: RunStore) -> None:
    pins = Pins(store.database)
    assert pins.all() == []
    first = pins.add("  wide \n block 3 ", SLIM.with_widths((6, 16, 48)))
    second = pins.add("unequal", PRESETS["nin-cifar10"])
    assert first.name == "wide block 3"
    store.close()
    assert Pins(RunStore(store.url).database).all() == [
        Pin(first.id, "wide block 3", SLIM.with_widths((6, 16, 48))),
        Pin(second.id, "unequal", PRESETS["nin-cifar10"]),
    ]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "needs a name"),
        (" \n\t ", "needs a name"),
        (
            "x" * (MAX_PIN_NAME + 1),
            f"{MAX_PIN_NAME + 1} characters; at most {MAX_PIN_NAME} would work",
        ),
        ("nin-224", "“my nin-224” would work"),
        ("NiN-28", "“my NiN-28” would work"),
        ("MINE", "There is a pinned network “mine” already"),
    ],
)
def test_a_name_that_cannot_be(pins: Pins, name: str, sentence: str) -> None:
    pins.add("mine", SLIM)
    other = pins.add("other", FULL)
    before = pins.all()
    for action in (lambda: pins.add(name, FULL), lambda: pins.rename(other.id, name)):
        with pytest.raises(StoreError, match=sentence) as caught:
            action()
        assert caught.value.reason == "refused"
        assert str(caught.value).endswith(".")
    assert pins.all() == before


def test_renaming_and_deleting(pins: Pins) -> None:
    kept, gone = pins.add("kept", SLIM), pins.add("gone", FULL)
    pins.rename(kept.id, "Kept")  # only its capitals: not taken by itself
    pins.delete(gone.id)
    pins.delete(gone.id)
    assert [(pin.id, pin.name) for pin in pins.all()] == [(kept.id, "Kept")]
    with pytest.raises(StoreError, match="is gone"):
        pins.rename(gone.id, "back")
    assert pins.add("gone", FULL).id not in (kept.id, gone.id)


def test_a_file_put_in_the_stores_place_is_noticed(store: RunStore) -> None:
    pins = Pins(store.database)
    pins.add("old", SLIM)
    assert store.path is not None
    for suffix in ("", "-wal", "-shm"):
        Path(f"{store.path}{suffix}").unlink(missing_ok=True)
    assert pins.all() == []
    pins.add("new", SLIM)
    assert [pin.name for pin in pins.all()] == ["new"]


def test_a_store_that_is_damaged_is_one_sentence(store: RunStore) -> None:
    pins = Pins(store.database)
    pins.add("mine", SLIM)
    store.close()
    assert store.path is not None
    for suffix in ("-wal", "-shm"):
        Path(f"{store.path}{suffix}").unlink(missing_ok=True)
    store.path.write_bytes(b"no database at all" * 300)
    for action in (pins.all, lambda: pins.add("x", SLIM), lambda: pins.delete(1)):
        with pytest.raises(StoreError, match="is damaged or not a run store"):
            action()


def test_a_pin_that_cannot_be_read_says_so_and_can_be_deleted(store: RunStore) -> None:
    pins = Pins(store.database)
    pins.add("good", SLIM)
    broken = [pins.add(name, FULL).id for name in ("half", "strange", "empty")]
    contents = ('{"in_channels": 1', '{"in_channels": 1, "wings": 2}', "[]")
    with sqlite3.connect(store.database.path or "") as connection:
        connection.executemany(
            "update pins set network = ? where id = ?", zip(contents, broken, strict=True)
        )
    good, *rest = pins.all()
    assert good.network == SLIM
    assert good.problem is None
    for pin in rest:
        assert pin.network is None
        assert f"“{pin.name}” cannot be read" in (pin.problem or "")
        pins.delete(pin.id)
    assert [pin.name for pin in pins.all()] == ["good"]
