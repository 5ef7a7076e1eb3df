"""The data sets there are: their classes, sizes, files and digests. Plain facts, no torch.

Choices made here:

* A file is known by its digest, not by its name or place: MNIST, Fashion-MNIST and KMNIST use the
  same four file names. Digests are written "algorithm:hex".
* SHA-256 wherever one is published: Fashion-MNIST's of the decompressed bytes (Debian compresses
  the archives anew, so theirs say nothing), the archives' of MNIST, KMNIST and CIFAR-10 (from
  torchvision's prototype data sets and TensorFlow Datasets). For MNIST's decompressed files and
  CIFAR-10's unpacked batches only an MD5 is published, for KMNIST's decompressed files nothing:
  they are read from their archives only.
* Addresses and MD5s are those of torchvision's classes, whose downloader fetches them (a test
  compares the two). CIFAR-10 is the exception: its *binary* archive is fetched (address and MD5
  from the data set's page), since the one that torchvision's class fetches holds pickles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["idx", "cifar-binary", "cifar-python", "cifar-python-tar"]


@dataclass(frozen=True, slots=True)
class Published:
    """A file as it lies on the net: size in bytes, digests of exactly these bytes, addresses."""

    name: str
    size: int
    md5: str
    sha256: str
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a data set as it is read, that is, after gunzip where it is published as .gz.

    Attributes:
        name, size: file name and size in bytes.
        digest: "sha256:…" or "md5:…" of these bytes; None if none is published, and then the file
            is only read from its published archive.
        published: what can be downloaded for it, under `name` or `name` + ".gz".
    """

    name: str
    size: int
    digest: str | None
    published: Published | None = None

    @property
    def keeps_archive(self) -> bool:
        """Whether only the archive as published has a SHA-256, so that it is what we keep."""
        weak = self.digest is None or not self.digest.startswith("sha256:")
        return weak and self.published is not None


@dataclass(frozen=True, slots=True)
class Packing:
    """One way in which a data set lies on disk: files that together are the whole set.

    Attributes:
        format: how `nin_core.data` reads the files. For "idx" they are, in this order, training
            images, training labels, test images, test labels.
        folders: where the files may lie inside the data folder, best first. All but "" (the data
            folder itself) belong to this data set alone.
        files: in the order that the format names.
        system_folders: read-only folders that a package of the system fills.
    """

    format: Format
    folders: tuple[str, ...]
    files: tuple[DataFile, ...]
    system_folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is loaded.

    Attributes:
        name: the key in `DATASETS`; title: for people.
        class_names: one per label, label 0 first.
        channels, side: images are channels × side × side, uint8.
        train_size, test_size: number of images.
        mean, std: per channel, of pixels / 255 over the training set.
        mirrors: whether a mirrored image still shows its class; not so for characters.
        packings: the ways it may lie on disk, the one that is downloaded first; none for a
            generated set.
        package: the Debian/Ubuntu package that brings it, if there is one.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    channels: int
    side: int
    train_size: int
    test_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    packings: tuple[Packing, ...] = ()
    package: str | None = None
    mirrors: bool = True

    @property
    def generated(self) -> bool:
        """Whether we draw it ourselves, so that it is always there."""
        return not self.packings

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def download_bytes(self) -> int:
        """Bytes of a whole download; 0 for a generated set."""
        files = self.packings[0].files if self.packings else ()
        return sum(file.published.size for file in files if file.published)


_IDX_FILES = (
    ("train-images-idx3-ubyte", 47_040_016),
    ("train-labels-idx1-ubyte", 60_008),
    ("t10k-images-idx3-ubyte", 7_840_016),
    ("t10k-labels-idx1-ubyte", 10_008),
)


def _idx(
    folder: str,
    mirrors: tuple[str, ...],
    published: tuple[tuple[int, str, str], ...],
    digests: tuple[str | None, ...],
    system_folders: tuple[str, ...] = (),
) -> Packing:
    """The four IDX files of an MNIST-like set; `published` is (size, md5, sha256) of each .gz."""
    files = tuple(
        DataFile(
            name,
            size,
            digest,
            Published(f"{name}.gz", gz_size, md5, sha256, tuple(f"{m}{name}.gz" for m in mirrors)),
        )
        for (name, size), (gz_size, md5, sha256), digest in zip(
            _IDX_FILES, published, digests, strict=True
        )
    )
    return Packing("idx", (f"{folder}/raw", ""), files, system_folders)


_FASHION_MNIST = DatasetInfo(
    name="fashion-mnist",
    title="Fashion-MNIST",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    channels=1,
    side=28,
    train_size=60_000,
    test_size=10_000,
    mean=(0.2860,),
    std=(0.3530,),
    packings=(
        _idx(
            "FashionMNIST",
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            (
                (
                    26_421_880,
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                (
                    29_515,
                    "25c81989df183df01b3e8a0aad5dffbe",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                (
                    4_422_102,
                    "bef4ecab320f06d8554ea6380940ec79",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                (
                    5_148,
                    "bb300cfdad3c16e7a12a480ee83cd310",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
            (
                "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            ("/usr/share/datasets/fashion-mnist",),
        ),
    ),
    package="dataset-fashion-mnist",
)

_MNIST = DatasetInfo(
    name="mnist",
    title="MNIST",
    mirrors=False,
    class_names=tuple("0123456789"),
    channels=1,
    side=28,
    train_size=60_000,
    test_size=10_000,
    mean=(0.1307,),
    std=(0.3081,),
    packings=(
        _idx(
            "MNIST",
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "http://yann.lecun.com/exdb/mnist/",
            ),
            (
                (
                    9_912_422,
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                (
                    28_881,
                    "d53e105ee54ea40749a09fcbcd1e9432",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
                (
                    1_648_877,
                    "9fb629c4189551a2d022fa330f9573f3",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                (
                    4_542,
                    "ec29112dd5afa0611ce80d1b7f02629c",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            ),
            (
                "md5:6bbc9ace898e44ae57da46a324031adb",
                "md5:a25bea736e30d166cdddb491f175f624",
                "md5:2646ac647ad5339dbf082846283269ea",
                "md5:27ae3e4e09519cfbb04c329615203637",
            ),
        ),
    ),
)

_KMNIST = DatasetInfo(
    name="kmnist",
    title="KMNIST",
    mirrors=False,
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    channels=1,
    side=28,
    train_size=60_000,
    test_size=10_000,
    mean=(0.1918,),
    std=(0.3483,),
    packings=(
        _idx(
            "KMNIST",
            ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
            (
                (
                    18_165_135,
                    "bdb82020997e1d708af4cf47b453dcf7",
                    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                ),
                (
                    29_497,
                    "e144d726b3acfaa3e44228e80efcd344",
                    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                ),
                (
                    3_041_136,
                    "5c965bf0a639b31b8f53240b1b52f4d7",
                    "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                ),
                (
                    5_120,
                    "7320c461ea6c1c855c0b718fb2a4b134",
                    "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
                ),
            ),
            (None, None, None, None),
        ),
    ),
)

_CIFAR10 = DatasetInfo(
    name="cifar10",
    title="CIFAR-10",
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    channels=3,
    side=32,
    train_size=50_000,
    test_size=10_000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    packings=(
        Packing(
            "cifar-binary",
            ("",),
            (
                DataFile(
                    "cifar-10-binary.tar.gz",
                    170_052_171,
                    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    Published(
                        "cifar-10-binary.tar.gz",
                        170_052_171,
                        "c32a1d4ab5d03f1284b67883e8d87530",
                        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                    ),
                ),
            ),
        ),
        # What torchvision.datasets.CIFAR10 leaves behind: six batches, or the archive alone.
        Packing(
            "cifar-python",
            ("cifar-10-batches-py",),
            (
                DataFile("data_batch_1", 31_035_704, "md5:c99cafc152244af753f735de768cd75f"),
                DataFile("data_batch_2", 31_035_320, "md5:d4bba439e000b95fd0a9bffe97cbabec"),
                DataFile("data_batch_3", 31_035_999, "md5:54ebc095f3ab1f0389bbae665268c751"),
                DataFile("data_batch_4", 31_035_696, "md5:634d18415352ddfa80567beed471001a"),
                DataFile("data_batch_5", 31_035_623, "md5:482c414d41f54cd18b22e5b47cb7c3cb"),
                DataFile("test_batch", 31_035_526, "md5:40351d587109b95175f43aff81a1287e"),
            ),
        ),
        Packing(
            "cifar-python-tar",
            ("",),
            (
                DataFile(
                    "cifar-10-python.tar.gz",
                    170_498_071,
                    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                ),
            ),
        ),
    ),
)

# Mean and sd are those of `shapes.draw_shapes()` as it stands (a test compares).
_SHAPES = DatasetInfo(
    name="shapes",
    title="Shapes (generated)",
    class_names=(
        "Circle",
        "Triangle",
        "Square",
        "Star",
        "Cross",
        "Arrow",
        "Crescent",
        "Zigzag",
        "Two bars",
        "Three dots",
    ),
    channels=1,
    side=28,
    train_size=6_000,
    test_size=1_000,
    mean=(0.1785,),
    std=(0.1854,),
)

DATASETS: dict[str, DatasetInfo] = {
    info.name: info for info in (_FASHION_MNIST, _MNIST, _KMNIST, _CIFAR10, _SHAPES)
}
