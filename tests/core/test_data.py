"""Data sets: found, verified, replaced, fetched and read; small files in the real formats.

The sets of the tests are described by `DatasetInfo`s of their own, with the digests of what the
tests write: verification is the same code, never switched off.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from nin_core import BlockConfig, PoolConfig, download, preset
from nin_core.data import (
    DATASETS,
    DataError,
    Dataset,
    balanced_sample,
    data_folder,
    find_dataset,
    load_dataset,
    prepare,
)
from nin_core.datasets import DataFile, DatasetInfo, Packing, Published
from nin_core.model import build_nin
from nin_core.shapes import draw_shapes

PROJECT = Path(__file__).resolve().parents[2]


# --- small data sets in the real formats ------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
TRAIN, TEST, SIDE = 40, 20, 5


@dataclass
class Tiny:
    """Forty and twenty images of 5×5 in IDX files, and where they may lie."""

    root: Path
    system: Path
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.train_images = rng.integers(0, 256, (TRAIN, SIDE, SIDE))
        self.test_images = rng.integers(0, 256, (TEST, SIDE, SIDE))
        self.train_labels, self.test_labels = np.arange(TRAIN) % 10, np.arange(TEST) % 10
        arrays = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        self.files = {name: idx(array) for name, array in zip(NAMES, arrays, strict=True)}
        self.archives = {f"{name}.gz": gzip.compress(c, 1) for name, c in self.files.items()}

    def info(
        self,
        *,
        urls: tuple[str, ...] = (),
        digest: Callable[[bytes], str | None] = lambda content: f"sha256:{sha256(content)}",
    ) -> DatasetInfo:
        files = tuple(
            DataFile(
                name,
                len(content),
                digest(content),
                Published(
                    f"{name}.gz",
                    len(archive := self.archives[f"{name}.gz"]),
                    md5(archive),
                    sha256(archive),
                    tuple(f"{url}{name}.gz" for url in urls),
                ),
            )
            for name, content in self.files.items()
        )
        packing = Packing("idx", ("Tiny/raw", ""), files, (str(self.system),))
        return DatasetInfo(
            "tiny",
            "Tiny",
            tuple("0123456789"),
            1,
            SIDE,
            TRAIN,
            TEST,
            (0.5,),
            (0.3,),
            (packing,),
            "dataset-tiny",
        )

    def put(self, folder: Path, *, archives: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (self.archives if archives else self.files).items():
            (folder / name).write_bytes(content)

    def is_right(self, dataset: Dataset) -> bool:
        return (
            torch.equal(dataset.train_images[:, 0], torch.tensor(self.train_images).byte())
            and torch.equal(dataset.test_images[:, 0], torch.tensor(self.test_images).byte())
            and dataset.train_labels.tolist() == self.train_labels.tolist()
            and dataset.test_labels.tolist() == self.test_labels.tolist()
        )


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path / "data", tmp_path / "system")


def leftovers(root: Path) -> list[Path]:
    """Temporary files and folders that should be gone."""
    return [path for path in root.rglob("*") if path.name.startswith(".")]


# --- the real set, the registry ---------------------------------------------------------------


def test_fashion_mnist_is_the_published_set(fashion_mnist: Dataset) -> None:
    assert fashion_mnist.train_images.shape == (60_000, 1, 28, 28)
    assert fashion_mnist.test_images.shape == (10_000, 1, 28, 28)
    assert fashion_mnist.train_images.dtype == fashion_mnist.test_images.dtype == torch.uint8
    assert fashion_mnist.train_labels.dtype == fashion_mnist.test_labels.dtype == torch.int64
    assert fashion_mnist.train_labels.bincount().tolist() == [6_000] * 10
    assert fashion_mnist.test_labels.bincount().tolist() == [1_000] * 10
    assert fashion_mnist.class_names[int(fashion_mnist.train_labels[0])] == "Ankle boot"
    assert not fashion_mnist.generated
    assert "SHA-256 verified" in fashion_mnist.source


def test_fashion_mnist_mean_and_sd_are_those_of_its_pixels(fashion_mnist: Dataset) -> None:
    pixels = fashion_mnist.train_images.float() / 255
    assert fashion_mnist.mean == pytest.approx([pixels.mean().item()], abs=1e-4)
    assert fashion_mnist.std == pytest.approx([pixels.std().item()], abs=1e-4)
    assert {fashion_mnist: 1}[fashion_mnist] == 1, "hashable by identity, for caches"


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("fashion-mnist", "FashionMNIST"), ("mnist", "MNIST"), ("kmnist", "KMNIST")],
)
def test_addresses_and_md5s_are_torchvisions(name: str, theirs: str) -> None:
    from torchvision import datasets

    theirs = getattr(datasets, theirs)
    packing = DATASETS[name].packings[0]
    published = [file.published for file in packing.files]
    assert [(p.name, p.md5) for p in published] == list(theirs.resources)
    assert all(p.urls == tuple(mirror + p.name for mirror in theirs.mirrors) for p in published)
    assert packing.folders[0] == f"{theirs.__name__}/raw"
    if name != "mnist":  # torchvision: "0 - zero"
        assert list(DATASETS[name].class_names) == theirs.classes


def test_cifar10s_unpacked_batches_are_torchvisions() -> None:
    from torchvision.datasets import CIFAR10

    packing = DATASETS["cifar10"].packings[1]
    assert packing.folders == (CIFAR10.base_folder,)
    ours = [[file.name, (file.digest or "").removeprefix("md5:")] for file in packing.files]
    assert ours == CIFAR10.train_list + CIFAR10.test_list
    assert DATASETS["cifar10"].packings[2].files[0].name == CIFAR10.filename


@pytest.mark.parametrize("info", DATASETS.values(), ids=list(DATASETS))
def test_every_entry_of_the_registry_is_well_formed(info: DatasetInfo) -> None:
    assert DATASETS[info.name] is info
    assert len(info.mean) == len(info.std) == info.channels
    assert len(set(info.class_names)) == info.num_classes == 10
    lengths = {"sha256": 64, "md5": 32}
    for packing in info.packings:
        for file in packing.files:
            assert file.digest or file.published, "a file that nothing verifies"
            if file.digest:
                algorithm, _, digest = file.digest.partition(":")
                assert re.fullmatch(r"[0-9a-f]+", digest) and len(digest) == lengths[algorithm]
            if file.published:
                assert len(file.published.sha256) == 64 and len(file.published.md5) == 32
    assert info.generated or all(file.published for file in info.packings[0].files)


def test_importing_and_asking_load_no_torch() -> None:
    code = (
        "import sys; from nin_core.data import DATASETS, find_dataset;"
        "[find_dataset(name) for name in DATASETS]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0


def test_the_data_folder_is_the_same_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NIN_DATA", raising=False)
    assert data_folder() == PROJECT / "data"
    monkeypatch.setenv("NIN_DATA", "elsewhere")
    assert data_folder() == PROJECT / "elsewhere"
    monkeypatch.setenv("NIN_DATA", str(tmp_path))
    assert data_folder() == tmp_path


def test_an_unknown_name_gets_the_list_of_names() -> None:
    for ask in (load_dataset, find_dataset):
        with pytest.raises(DataError, match=r"no data set 'imagenet'.*fashion-mnist.*shapes"):
            ask("imagenet")


# --- where files are looked for ---------------------------------------------------------------


@pytest.mark.parametrize("archives", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("place", ["Tiny/raw", "", "system"])
def test_files_are_found_in_every_layout(tiny: Tiny, place: str, archives: bool) -> None:
    folder = tiny.system if place == "system" else tiny.root / place
    tiny.put(folder, archives=archives)
    status = find_dataset(tiny.info(), folder=tiny.root)
    assert status.available and str(folder) in status.sentence
    dataset = load_dataset(tiny.info(), folder=tiny.root, download=False)
    assert tiny.is_right(dataset)
    assert dataset.source == f"Tiny from {folder}, SHA-256 verified."


def test_nin_data_is_used(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.put(tiny.root, archives=True)
    monkeypatch.setenv("NIN_DATA", str(tiny.root))
    assert find_dataset(tiny.info()).available
    assert tiny.is_right(load_dataset(tiny.info(), download=False))


def test_the_data_folder_comes_before_the_systems(tiny: Tiny) -> None:
    tiny.put(tiny.root / "Tiny/raw", archives=False)
    tiny.put(tiny.system, archives=True)
    assert str(tiny.root) in load_dataset(tiny.info(), folder=tiny.root).source


def test_a_packages_archives_are_unpacked_once(tiny: Tiny) -> None:
    tiny.put(tiny.system, archives=True)
    assert str(tiny.system) in load_dataset(tiny.info(), folder=tiny.root).source
    assert {path.name for path in (tiny.root / "Tiny/raw").iterdir()} == set(tiny.files)
    again = load_dataset(tiny.info(), folder=tiny.root)
    assert tiny.is_right(again)
    assert again.source == f"Tiny from {tiny.root / 'Tiny/raw'}, SHA-256 verified."


def test_what_cannot_be_unpacked_is_read_as_it_is(tiny: Tiny) -> None:
    tiny.put(tiny.system, archives=True)
    tiny.root.write_bytes(b"a file where the folder should be")
    assert tiny.is_right(load_dataset(tiny.info(), folder=tiny.root))
    assert tiny.is_right(load_dataset(tiny.info(), folder=tiny.root))


def test_files_may_come_from_several_places(tiny: Tiny) -> None:
    tiny.put(tiny.root, archives=False)
    tiny.put(tiny.system, archives=True)
    (tiny.root / NAMES[1]).unlink()
    dataset = load_dataset(tiny.info(), folder=tiny.root, download=False)
    assert tiny.is_right(dataset)
    assert str(tiny.root) in dataset.source and str(tiny.system) in dataset.source


def test_without_files_a_sentence_says_what_to_do(tiny: Tiny) -> None:
    status = find_dataset(tiny.info(), folder=tiny.root)
    assert not status.available and status.where == ""
    assert "not on this computer" in status.sentence
    with pytest.raises(DataError) as error:
        load_dataset(tiny.info(), folder=tiny.root, download=False)
    for advice in (
        "connect to the internet",
        str(tiny.root / "Tiny/raw"),
        f"{NAMES[0]}.gz",
        "apt-get install dataset-tiny",
        "Shapes",
    ):
        assert advice in str(error.value)
    assert "\n" not in str(error.value)
    assert not tiny.root.exists(), "asking leaves no trace"


# --- bad files: named, replaced, never used ---------------------------------------------------


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


PLAIN_DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda c: c[:-7], r"is truncated \([\d,]+ of [\d,]+ bytes\)"),
    "empty": (lambda c: b"", r"is truncated \(0 of"),
    "one bit": (flip, "is not the published file"),
    "longer": (lambda c: c + b"more", "is longer than it should be"),
    "much longer": (lambda c: c + bytes(2_000_000), "is far too long"),
}
GZ_DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda c: gzip.compress(c)[:-9], "is truncated or damaged"),
    "empty": (lambda c: b"", "is truncated"),
    "no gzip": (lambda c: c, "is truncated or damaged"),
    "one bit": (lambda c: gzip.compress(flip(c)), "is not the published file"),
    "shorter": (lambda c: gzip.compress(c[:-7]), "is truncated"),
    "longer": (lambda c: gzip.compress(c + b"more"), "is longer than it should be"),
}
DAMAGES = [
    pytest.param(suffix, damage, message, id=f"{suffix or 'plain'} {kind}")
    for suffix, damages in (("", PLAIN_DAMAGE), (".gz", GZ_DAMAGE))
    for kind, (damage, message) in damages.items()
]


@pytest.mark.parametrize(("suffix", "damage", "message"), DAMAGES)
@pytest.mark.parametrize("name", [NAMES[0], NAMES[3]])
def test_a_bad_file_is_named_and_replaced(
    tiny: Tiny, name: str, suffix: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    tiny.put(tiny.system, archives=True)
    home = tiny.root / "Tiny/raw"
    tiny.put(home, archives=bool(suffix))
    bad = home / (name + suffix)
    bad.write_bytes(damage(tiny.files[name]))

    dataset = load_dataset(tiny.info(), folder=tiny.root, download=False)
    assert tiny.is_right(dataset)
    assert re.search(rf"{re.escape(str(bad))} {message}.* and was replaced\.", dataset.source)

    again = load_dataset(tiny.info(), folder=tiny.root, download=False)
    assert tiny.is_right(again) and "replaced" not in again.source
    assert str(tiny.system) not in again.source, "all four are whole in the data folder again"
    assert not leftovers(tiny.root)


@pytest.mark.parametrize(("suffix", "damage", "message"), DAMAGES)
def test_a_bad_file_without_a_substitute_is_named_and_not_used(
    tiny: Tiny, suffix: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    tiny.put(tiny.system, archives=bool(suffix))
    bad = tiny.system / (NAMES[0] + suffix)
    bad.write_bytes(content := damage(tiny.files[NAMES[0]]))
    with pytest.raises(DataError, match=rf"{re.escape(str(bad))} {message}"):
        load_dataset(tiny.info(), folder=tiny.root, download=False)
    assert bad.read_bytes() == content, "the system's folder is not ours to repair"
    assert not find_dataset(tiny.info(), folder=tiny.root).available, "and it is remembered"
    tiny.put(tiny.system, archives=bool(suffix))
    assert find_dataset(tiny.info(), folder=tiny.root).available, "until the file changes"


def test_a_truncated_file_in_the_data_folder_itself_is_replaced(tiny: Tiny) -> None:
    tiny.put(tiny.system, archives=True)
    tiny.put(tiny.root, archives=False)
    bad = tiny.root / NAMES[0]
    bad.write_bytes(tiny.files[NAMES[0]][:100])
    assert f"{bad} is truncated" in load_dataset(tiny.info(), folder=tiny.root).source
    assert bad.read_bytes() == tiny.files[NAMES[0]]


@pytest.mark.parametrize("archives", [False, True], ids=["plain", "gz"])
def test_whole_files_of_another_set_in_the_data_folder_itself_stay(
    tiny: Tiny, archives: bool
) -> None:
    """MNIST, KMNIST and Fashion-MNIST have the same file names: do not overwrite one by another."""
    other = Tiny(tiny.root, tiny.system, seed=1)
    other.put(tiny.root, archives=archives)
    tiny.put(tiny.system, archives=True)
    dataset = load_dataset(tiny.info(), folder=tiny.root)
    assert tiny.is_right(dataset) and "was not used" in dataset.source
    assert other.is_right(load_dataset(other.info(), folder=tiny.root, download=False))


def test_a_bad_file_that_cannot_be_replaced_is_said_to_be(tiny: Tiny) -> None:
    tiny.put(tiny.system, archives=True)
    bad = tiny.root / "Tiny/raw" / NAMES[0]
    (bad / "in the way").mkdir(parents=True)
    dataset = load_dataset(tiny.info(), folder=tiny.root)
    assert tiny.is_right(dataset)
    assert f"{bad} cannot be read" in dataset.source and "cannot be replaced" in dataset.source
    assert not leftovers(tiny.root)


def test_without_a_published_digest_only_the_archive_is_trusted(tiny: Tiny) -> None:
    info = tiny.info(digest=lambda content: None)
    tiny.put(tiny.root / "Tiny/raw", archives=False)
    assert not find_dataset(info, folder=tiny.root).available
    with pytest.raises(DataError, match="cannot be verified without its"):
        load_dataset(info, folder=tiny.root, download=False)
    tiny.put(tiny.root / "Tiny/raw", archives=True)
    assert find_dataset(info, folder=tiny.root).available
    dataset = load_dataset(info, folder=tiny.root, download=False)
    assert tiny.is_right(dataset) and dataset.source.endswith("SHA-256 verified.")
    (tiny.root / "Tiny/raw" / f"{NAMES[0]}.gz").write_bytes(gzip.compress(tiny.files[NAMES[0]], 9))
    with pytest.raises(DataError, match="is not the published archive"):
        load_dataset(info, folder=tiny.root, download=False)


def test_the_digest_that_was_compared_is_the_one_that_is_named(tiny: Tiny) -> None:
    info = tiny.info(digest=lambda content: f"md5:{md5(content)}")
    tiny.put(tiny.root, archives=False)
    source = load_dataset(info, folder=tiny.root, download=False).source
    assert "MD5 verified" in source and "SHA-256 verified" not in source
    tiny.put(tiny.root, archives=True)
    assert "SHA-256 verified" in load_dataset(info, folder=tiny.root, download=False).source


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (NAMES[1], np.full(TRAIN, 10), "label 10"),
        (NAMES[1], np.zeros(TRAIN - 1), "40 images"),
        (NAMES[0], np.zeros((TRAIN, SIDE, SIDE + 1)), "40 images"),
        (NAMES[0], None, "not in the format"),
    ],
)
def test_verified_files_that_do_not_fit_the_description_get_a_sentence(
    tiny: Tiny, name: str, array: np.ndarray | None, message: str
) -> None:
    tiny.files[name] = b"no idx at all" if array is None else idx(array)
    tiny.put(tiny.root, archives=False)
    with pytest.raises(DataError, match=message):
        load_dataset(tiny.info(), folder=tiny.root, download=False)


# --- fetching ---------------------------------------------------------------------------------


@dataclass
class Server:
    url: str
    files: dict[str, bytes]
    requests: list[str]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A web server on this machine that has the given files."""
    files: dict[str, bytes] = {}
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            content = files.get(self.path.lstrip("/"))
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield Server(f"http://127.0.0.1:{running.server_port}/", files, requests)
        running.shutdown()
        thread.join()


CLOSED = "http://127.0.0.1:9/"  # the discard port: nothing listens


def test_what_is_missing_is_downloaded_verified_and_kept(tiny: Tiny, server: Server) -> None:
    server.files.update(tiny.archives)
    info = tiny.info(urls=(CLOSED, server.url))
    home = tiny.root / "Tiny/raw"
    tiny.put(home, archives=False)
    (home / NAMES[0]).write_bytes(b"broken")
    (home / NAMES[1]).unlink()
    seen: list[tuple[str, float]] = []
    dataset = load_dataset(info, folder=tiny.root, progress=lambda *event: seen.append(event))
    assert tiny.is_right(dataset)
    assert f"{home / NAMES[0]} is truncated" in dataset.source and "replaced" in dataset.source
    asked = {path.strip("/") for path in server.requests}
    assert asked == {f"{NAMES[0]}.gz", f"{NAMES[1]}.gz"}, "only what is missing or bad"
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert "Downloading Tiny" in seen[0][0]
    server.requests.clear()
    assert tiny.is_right(load_dataset(info, folder=tiny.root))
    assert not server.requests
    assert {path.name for path in home.iterdir()} == set(NAMES)
    assert not leftovers(tiny.root)


def test_a_download_that_is_not_the_published_file_is_refused(tiny: Tiny, server: Server) -> None:
    server.files.update(tiny.archives)
    info = tiny.info(urls=(server.url,))
    server.files[f"{NAMES[2]}.gz"] = gzip.compress(flip(tiny.files[NAMES[2]]))
    with pytest.raises(DataError, match=rf"{NAMES[2]}\.gz is not the published file"):
        load_dataset(info, folder=tiny.root)
    assert not find_dataset(info, folder=tiny.root).available
    assert not leftovers(tiny.root)


@pytest.fixture
def delivered(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A downloader that brings the archives of `tiny` at once; the names that were asked of it."""
    asked: list[str] = []

    def bring(files: Sequence[Published], folder: Path, report: Callable[[int, int], None]) -> None:
        for file in files:
            asked.append(file.name)
            (folder / file.name).write_bytes(tiny.archives[file.name])
        report(5, 5)

    monkeypatch.setattr(download, "download", bring)
    return asked


def test_two_threads_that_want_the_same_set_fetch_it_once(tiny: Tiny, delivered: list[str]) -> None:
    loaded: list[Dataset] = []
    threads = [
        threading.Thread(target=lambda: loaded.append(load_dataset(tiny.info(), folder=tiny.root)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 4 and all(map(tiny.is_right, loaded))
    assert sorted(delivered) == sorted(tiny.archives)


def test_the_archive_is_kept_where_only_it_has_a_sha256(tiny: Tiny, delivered: list[str]) -> None:
    info = tiny.info(digest=lambda content: f"md5:{md5(content)}")
    home = tiny.root / "Tiny/raw"
    tiny.put(home, archives=False)
    (home / NAMES[0]).write_bytes(b"broken")
    (home / NAMES[2]).unlink()
    assert tiny.is_right(load_dataset(info, folder=tiny.root))
    kept = {f"{NAMES[0]}.gz", NAMES[1], f"{NAMES[2]}.gz", NAMES[3]}
    assert {path.name for path in home.iterdir()} == kept
    assert set(delivered) == {f"{NAMES[0]}.gz", f"{NAMES[2]}.gz"}


def test_an_md5_alone_does_not_let_a_download_in(tiny: Tiny, delivered: list[str]) -> None:
    """As if someone had made another file with the published MD5: SHA-256 decides."""
    info = tiny.info()
    tiny.archives[f"{NAMES[0]}.gz"] = gzip.compress(flip(tiny.files[NAMES[0]]))
    with pytest.raises(DataError, match=r"what was downloaded as .* is not the published file"):
        load_dataset(info, folder=tiny.root)
    assert not [path for path in tiny.root.rglob("*") if path.is_file()]


def test_without_a_network_a_sentence_comes_instead_of_a_wait(tiny: Tiny) -> None:
    info = tiny.info(urls=(CLOSED, "http://nowhere.invalid/"))
    with pytest.raises(DataError) as error:
        load_dataset(info, folder=tiny.root)
    assert "could not be downloaded (127.0.0.1: " in str(error.value)
    assert "nowhere.invalid cannot be found, so there is probably no network" in str(error.value)
    assert "connect to the internet and try again, or put" in str(error.value)
    assert not leftovers(tiny.root)


def test_a_server_that_never_answers_is_given_up(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(download, "ANSWER_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        info = tiny.info(urls=(f"http://127.0.0.1:{deaf.getsockname()[1]}/",))
        with pytest.raises(DataError, match="nothing arrived for 1 seconds"):
            load_dataset(info, folder=tiny.root)
    assert not leftovers(tiny.root)


def test_a_data_folder_that_cannot_be_written_gets_a_sentence(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(DataError, match=r"cannot be written to .*set NIN_DATA to a folder"):
        load_dataset(tiny.info(urls=(CLOSED,)), folder=tmp_path / "a file")


def test_the_remains_of_killed_downloads_are_swept(tiny: Tiny) -> None:
    old, new = tiny.root / ".download-old", tiny.root / ".download-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "part").touch()
    os.utime(old, (1, 1))
    with pytest.raises(DataError):
        load_dataset(tiny.info(urls=(CLOSED,)), folder=tiny.root)
    assert not old.exists() and new.exists()


def test_processes_that_repair_the_same_files_do_not_disturb_each_other(
    fashion_mnist: Dataset, tmp_path: Path
) -> None:
    """Two processes find the same truncated files of the real set, and whole ones elsewhere."""
    whole, raw = tmp_path / "FashionMNIST/raw", tmp_path / "root/FashionMNIST/raw"
    whole.mkdir(parents=True), raw.mkdir(parents=True)
    files = DATASETS["fashion-mnist"].packings[0].files
    arrays = (
        fashion_mnist.train_images,
        fashion_mnist.train_labels,
        fashion_mnist.test_images,
        fashion_mnist.test_labels,
    )
    for file, array in zip(files, arrays, strict=True):
        content = idx(array.squeeze().numpy())
        (whole / file.name).write_bytes(content)
        (raw / file.name).write_bytes(content[:-1])
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path;"
        "from nin_core.data import DATASETS, load_dataset;"
        "info = DATASETS['fashion-mnist']; packing = info.packings[0];"
        "info = replace(info, packings=(replace(packing, system_folders=(sys.argv[2],)),));"
        "print(load_dataset(info, folder=Path(sys.argv[1]), download=False).source)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "root"), str(whole)]
    running = [
        subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in running:
        output, _ = process.communicate()
        assert process.returncode == 0 and "SHA-256 verified" in output
    for file in files:
        assert (raw / file.name).read_bytes() == (whole / file.name).read_bytes()
    assert not leftovers(tmp_path)


# --- CIFAR-10 ---------------------------------------------------------------------------------

PER_BATCH = 20
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def python2_batch(title: str, labels: list[int], pixels: np.ndarray, *, fortran: bool) -> bytes:
    """A batch as Python 2's cPickle wrote it, opcode by opcode: no Python 3 writes such strings."""

    def string(text: bytes) -> bytes:
        short = len(text) < 256
        return (b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text))) + text

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09"
        + b"(K\x01M"
        + struct.pack("<H", len(pixels))
        + b"M\x00\x0c\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x88" if fortran else b"\x89")
        + string(pixels.tobytes(order="F" if fortran else "C"))
        + b"tb"
    )
    names = b"".join(string(b"picture_%06d.png" % number) for number in range(len(labels)))
    return (
        b"\x80\x02}q\x01("
        + string(b"batch_label")
        + string(title.encode())
        + string(b"labels")
        + b"]("
        + b"".join(b"K" + bytes([label]) for label in labels)
        + b"e"
        + string(b"data")
        + array
        + string(b"filenames")
        + b"]("
        + names
        + b"e"
        + b"u."
    )


def tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@dataclass
class TinyCifar:
    """Six batches of twenty colour images, packed in the three ways; `info` knows one of them."""

    root: Path

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (6, PER_BATCH, 3072), dtype=np.uint8)
        self.labels = rng.integers(0, 10, (6, PER_BATCH))

    def batch(self, number: int) -> bytes:
        labels, pixels = self.labels[number].tolist(), self.pixels[number]
        return python2_batch(f"batch {number}", labels, pixels, fortran=number == 4)

    def binary(self) -> dict[str, bytes]:
        records = np.concatenate([self.labels[..., None], self.pixels], axis=2).astype(np.uint8)
        named = zip(BATCHES, records, strict=True)
        members = {f"cifar-10-batches-bin/{name}.bin": batch.tobytes() for name, batch in named}
        return {"cifar-10-batches-bin/readme.html": b"<html>"} | members

    def info(self, kind: str, files: dict[str, bytes]) -> DatasetInfo:
        """The description of the set with just this packing, its files written to disk."""
        real = next(p for p in DATASETS["cifar10"].packings if p.format == kind)
        assert {file.name for file in real.files} == set(files)
        folder = self.root / real.folders[0]
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        packing = replace(
            real,
            files=tuple(DataFile(n, len(c), f"sha256:{sha256(c)}") for n, c in files.items()),
        )
        return replace(
            DATASETS["cifar10"],
            train_size=5 * PER_BATCH,
            test_size=PER_BATCH,
            packings=(packing,),
        )


@pytest.fixture
def cifar(tmp_path: Path) -> TinyCifar:
    return TinyCifar(tmp_path)


@pytest.mark.parametrize("kind", ["cifar-binary", "cifar-python", "cifar-python-tar"])
def test_cifar10_is_read_in_every_packing(cifar: TinyCifar, kind: str) -> None:
    batches = {name: cifar.batch(number) for number, name in enumerate(BATCHES)}
    files = {
        "cifar-binary": {"cifar-10-binary.tar.gz": tar(cifar.binary())},
        "cifar-python": batches,
        "cifar-python-tar": {
            "cifar-10-python.tar.gz": tar(
                {f"cifar-10-batches-py/{name}": content for name, content in batches.items()}
            )
        },
    }[kind]
    info = cifar.info(kind, files)
    assert find_dataset(info, folder=cifar.root).available
    dataset = load_dataset(info, folder=cifar.root, download=False)
    images = torch.from_numpy(cifar.pixels.reshape(6, PER_BATCH, 3, 32, 32))
    assert torch.equal(dataset.train_images, images[:5].flatten(0, 1))
    assert torch.equal(dataset.test_images, images[5])
    assert dataset.train_labels.tolist() == cifar.labels[:5].ravel().tolist()
    assert dataset.test_labels.tolist() == cifar.labels[5].tolist()


@pytest.mark.parametrize("number", [0, 4])
def test_the_batches_of_these_tests_are_what_python_reads_too(
    cifar: TinyCifar, number: int
) -> None:
    entry = pickle.loads(cifar.batch(number), encoding="latin1")
    assert np.array_equal(entry["data"], cifar.pixels[number])
    assert entry["labels"] == cifar.labels[number].tolist()
    assert list(entry) == ["batch_label", "labels", "data", "filenames"]


def test_nothing_in_a_pickled_batch_is_executed(cifar: TinyCifar) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return Path.write_text, (cifar.root / "owned", "by a pickle")

    batches = {name: cifar.batch(number) for number, name in enumerate(BATCHES)}
    batches["data_batch_3"] = pickle.dumps(Attack())
    info = cifar.info("cifar-python", batches)
    with pytest.raises(DataError, match="not in the format"):
        load_dataset(info, folder=cifar.root, download=False)
    assert not (cifar.root / "owned").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.popitem(), r"test_batch\.bin is not in the archive"),
        (lambda members: members.update({"x/test_batch.bin": bytes(9**7)}), "is larger than"),
        (lambda members: members.update({"x/test_batch.bin": bytes(3)}), "not in the format"),
    ],
)
def test_a_verified_archive_that_is_no_cifar10_gets_a_sentence(
    cifar: TinyCifar, change: Callable[[dict[str, bytes]], object], message: str
) -> None:
    members = cifar.binary()
    change(members)
    info = cifar.info("cifar-binary", {"cifar-10-binary.tar.gz": tar(members)})
    with pytest.raises(DataError, match=message):
        load_dataset(info, folder=cifar.root, download=False)


# --- the generated set ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return load_dataset("shapes", download=False)


def test_shapes_are_always_there_and_say_that_they_are_generated(shapes: Dataset) -> None:
    assert find_dataset("shapes").available
    assert shapes.generated and "generated" in shapes.title and "drawn" in shapes.source
    assert shapes.train_images.shape == (6_000, 1, 28, 28)
    assert shapes.test_images.shape == (1_000, 1, 28, 28)
    assert shapes.train_labels.bincount().tolist() == [600] * 10
    assert shapes.test_labels.bincount().tolist() == [100] * 10


def test_shapes_have_the_mean_and_sd_of_the_registry(shapes: Dataset) -> None:
    pixels = shapes.train_images.float() / 255
    assert shapes.mean == pytest.approx([pixels.mean().item()], abs=1e-3)
    assert shapes.std == pytest.approx([pixels.std().item()], abs=1e-3)


def test_shapes_are_drawn_alike_for_a_seed_and_each_differently() -> None:
    images, labels, _, _ = draw_shapes(200, 10)
    again, *_ = draw_shapes(200, 10)
    other, *_ = draw_shapes(200, 10, seed=1)
    assert np.array_equal(images, again) and not np.array_equal(images, other)
    assert len({image.tobytes() for image in images}) == 200
    assert sorted(set(labels)) == list(range(10))


def test_shapes_are_not_for_a_linear_model(shapes: Dataset) -> None:
    """A least-squares classifier of the pixels is far from the 80 % that a small NiN exceeds."""
    pixels = shapes.train_images.flatten(1).double() / 255
    pixels = torch.cat([pixels, torch.ones(len(pixels), 1)], 1)
    targets = functional.one_hot(shapes.train_labels).double()
    ridge = pixels.T @ pixels + 10 * torch.eye(pixels.shape[1])
    weights = torch.linalg.solve(ridge, pixels.T @ targets)
    tests = shapes.test_images.flatten(1).double() / 255
    guesses = torch.cat([tests, torch.ones(len(tests), 1)], 1) @ weights
    accuracy = (guesses.argmax(1) == shapes.test_labels).double().mean()
    assert 0.1 < accuracy < 0.5


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: on a busy machine two wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_small_nin_learns_the_shapes(shapes: Dataset) -> None:
    """Three epochs of a NiN of 31,000 parameters; measured on two seeds: 99 %."""
    blocks = (
        BlockConfig((16, 16), kernel_size=5, padding=2, pool=PoolConfig(3, 2)),
        BlockConfig((32, 32), kernel_size=5, padding=2, pool=PoolConfig(3, 2)),
        BlockConfig((48, 48, 10), kernel_size=3, padding=1),
    )
    torch.manual_seed(0)
    model = build_nin(replace(preset("nin-28"), blocks=blocks))
    model = model.to(memory_format=torch.channels_last)
    steps = 3 * len(shapes.train_labels) // 64
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)

    def batch(images: torch.Tensor) -> torch.Tensor:
        return prepare(images, image_size=28, in_channels=1, mean=shapes.mean, std=shapes.std)

    order = torch.cat([torch.randperm(len(shapes.train_labels)) for _ in range(3)])
    for indices in order[: steps * 64].split(64):
        logits = model(batch(shapes.train_images[indices]))
        functional.cross_entropy(logits, shapes.train_labels[indices]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()
    with torch.no_grad():
        guesses = model(batch(shapes.test_images)).argmax(1)
    assert (guesses == shapes.test_labels).double().mean() > 0.8


# --- samples and batches ----------------------------------------------------------------------


def test_a_balanced_sample_has_the_classes_equally_often() -> None:
    labels = torch.randint(0, 10, (2_000,), generator=torch.Generator().manual_seed(0))
    for size in (100, 105):
        indices = balanced_sample(labels, size)
        counts = labels[indices].bincount(minlength=10)
        assert len(indices.unique()) == size and counts.max() - counts.min() <= 1
    assert torch.equal(balanced_sample(labels, 100), balanced_sample(labels, 100))
    assert not torch.equal(balanced_sample(labels, 100), balanced_sample(labels, 100, seed=1))
    assert balanced_sample(labels, 5_000).tolist() == list(range(2_000))


def test_a_balanced_sample_fills_up_where_a_class_runs_out() -> None:
    labels = torch.tensor([0] * 3 + [1] * 50 + [3] * 50)
    assert labels[balanced_sample(labels, 43)].bincount().tolist() == [3, 20, 0, 20]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 28, 28), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("size", [28, 20, 32, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_prepare_is_scale_standardise_and_resize(
    images: torch.Tensor, size: int, channels: int
) -> None:
    images = images[:, :channels]
    mean, std = [0.3, 0.4, 0.5][:channels], [0.2, 0.25, 0.3][:channels]
    batch = prepare(images, image_size=size, in_channels=channels, mean=mean, std=std)
    expected = (images.float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(
        -1, 1, 1
    )
    expected = functional.interpolate(expected, size=(size, size), mode="bilinear")
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, expected, atol=1e-5, rtol=1e-5)


def test_prepare_without_mean_and_sd_leaves_pixels_between_0_and_1(images: torch.Tensor) -> None:
    batch = prepare(images, image_size=28, in_channels=3, mean=None, std=None)
    torch.testing.assert_close(batch, images.float() / 255)


def test_prepare_repeats_grey_and_weighs_colour(images: torch.Tensor) -> None:
    grey = images[:, :1]
    batch = prepare(grey, image_size=28, in_channels=3, mean=[0.5], std=[0.25])
    assert batch.shape == (6, 3, 28, 28)
    torch.testing.assert_close(batch, ((grey.float() / 255 - 0.5) / 0.25).repeat(1, 3, 1, 1))
    luma = prepare(images, image_size=28, in_channels=1, mean=None, std=None)
    red, green, blue = (images.float() / 255).unbind(1)
    torch.testing.assert_close(luma[:, 0], 0.299 * red + 0.587 * green + 0.114 * blue)
    same = prepare(images, image_size=28, in_channels=1, mean=[0.5] * 3, std=[0.25] * 3)
    torch.testing.assert_close(same, (luma - 0.5) / 0.25)


def test_prepare_gives_the_memory_layout_that_is_asked_for(images: torch.Tensor) -> None:
    for last, form in ((True, torch.channels_last), (False, torch.contiguous_format)):
        batch = prepare(
            images, image_size=32, in_channels=3, mean=None, std=None, channels_last=last
        )
        assert batch.is_contiguous(memory_format=form)


def test_prepare_refuses_channels_that_it_cannot_make(images: torch.Tensor) -> None:
    with pytest.raises(DataError, match="3 channels and the network takes 5; 1 or 3"):
        prepare(images, image_size=28, in_channels=5, mean=None, std=None)
