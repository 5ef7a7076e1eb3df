"""Uploads: every file gives the right pixels or one sentence, and nothing else."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from nin_core import PRESETS
from nin_core.data import prepare
from nin_core.images import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SCANS,
    ImageError,
    has_bright_background,
    read_image,
    to_network_input,
)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write (huge, 16-bit colour, …)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [*extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(body)


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


@pytest.fixture
def greys(colours: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(colours[:, :, 0])


class TestPictures:
    def test_grey(self, greys: np.ndarray) -> None:
        pixels = read_image(encode(Image.fromarray(greys)))
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, greys[None])

    def test_colour(self, colours: np.ndarray) -> None:
        pixels = read_image(encode(Image.fromarray(colours)))
        np.testing.assert_array_equal(pixels, colours.transpose(2, 0, 1))

    def test_black_and_white(self) -> None:
        checks = np.indices((5, 7)).sum(axis=0) % 2 == 0
        pixels = read_image(encode(Image.fromarray(checks)))
        np.testing.assert_array_equal(pixels[0], checks * np.uint8(255))

    @pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
    def test_jpeg(self, mode: str, channels: int) -> None:
        ramp = np.linspace(0, 255, 64).astype(np.uint8) * np.ones((32, 1), np.uint8)
        data = encode(Image.fromarray(ramp).convert(mode), "JPEG", quality=95)
        pixels = read_image(data)
        assert pixels.shape == (channels, 32, 64)
        assert np.abs(pixels - ramp.astype(int)).max() <= 4

    def test_progressive_jpeg(self, colours: np.ndarray) -> None:
        image = Image.fromarray(colours)
        plain = read_image(encode(image, "JPEG"))
        np.testing.assert_array_equal(read_image(encode(image, "JPEG", progressive=True)), plain)

    def test_cmyk_jpeg(self) -> None:
        pixels = read_image(encode(Image.new("RGB", (16, 16), "red").convert("CMYK"), "JPEG"))
        red, green, blue = pixels[:, 8, 8].astype(int)
        assert red > 240
        assert green < 15
        assert blue < 15

    def test_palette(self, colours: np.ndarray) -> None:
        indexed = Image.fromarray(colours).quantize(16)
        expected = np.asarray(indexed.convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(read_image(encode(indexed)), expected)

    def test_palette_with_transparency_lies_on_white(self) -> None:
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.putpixel((1, 2), 1)
        pixels = read_image(encode(image, transparency=0))
        assert pixels[:, 2, 1].tolist() == [255, 0, 0]
        assert pixels[:, 0, 0].tolist() == [255, 255, 255]

    def test_alpha_lies_on_white(self) -> None:
        rgba = np.zeros((4, 4, 4), np.uint8)
        rgba[0, 0] = (10, 20, 30, 255)
        rgba[1, 1] = (0, 0, 0, 128)
        pixels = read_image(encode(Image.fromarray(rgba)))
        assert pixels[:, 0, 0].tolist() == [10, 20, 30]
        assert pixels[:, 1, 1].tolist() == [127, 127, 127]
        assert pixels[:, 2, 2].tolist() == [255, 255, 255]

    def test_grey_with_alpha_stays_grey(self) -> None:
        la = np.zeros((4, 4, 2), np.uint8)
        la[0, 0] = (90, 255)
        pixels = read_image(encode(Image.fromarray(la, "LA")))
        assert pixels.shape == (1, 4, 4)
        assert pixels[0, 0, 0] == 90
        assert pixels[0, 1, 1] == 255

    def test_16_bit_grey_is_scaled_not_clipped(self) -> None:
        wide = np.array([[0, 257, 32768], [65278, 65535, 100]], np.uint16)
        pixels = read_image(encode(Image.fromarray(wide)))
        np.testing.assert_array_equal(pixels, [[[0, 1, 128], [254, 255, 0]]])

    def test_16_bit_colour(self) -> None:
        values = np.array([[[0, 32768, 65535]]], ">u2")
        pixels = read_image(png(1, 1, 16, 2, b"\x00" + values.tobytes()))
        assert pixels[:, 0, 0].tolist() == [0, 128, 255]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_rotation_is_honoured(self, orientation: int) -> None:
        upright = np.zeros((24, 40), np.uint8)
        upright[:8, :8] = 255  # a bright corner at the top left
        image = Image.fromarray(upright)
        undo = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }
        if orientation > 1:
            image = image.transpose(undo[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("PNG", "JPEG"):
            pixels = read_image(encode(image, kind, exif=exif))
            assert pixels.shape == (1, 24, 40)
            assert np.abs(pixels[0].astype(int) - upright).max() < 40

    @pytest.mark.parametrize("orientation", [0, 9, 77])
    def test_a_nonsense_orientation_is_ignored(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert read_image(encode(Image.new("L", (9, 5)), exif=exif)).shape == (1, 5, 9)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    def test_broken_exif_is_ignored(self) -> None:
        for exif in (b"Exif\x00\x00garbage", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"x" * 60):
            data = encode(Image.new("L", (9, 5)), "JPEG", exif=exif)
            assert read_image(data).shape == (1, 5, 9)

    def test_webp(self, colours: np.ndarray) -> None:
        data = encode(Image.fromarray(colours), "WEBP", lossless=True)
        np.testing.assert_array_equal(read_image(data), colours.transpose(2, 0, 1))
        grey = Image.new("L", (40, 24), 90)
        assert np.abs(read_image(encode(grey, "WEBP")).astype(int) - 90).max() <= 2

    def test_an_animated_and_a_rotated_webp(self) -> None:
        frames = [Image.new("RGB", (6, 4), name) for name in ("red", "lime")]
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"save_all": True, "append_images": frames[1:], "lossless": True, "exif": exif}
        pixels = read_image(encode(frames[0], "WEBP", **options))
        assert pixels.shape == (3, 6, 4)
        assert pixels[:, 3, 2].tolist() == [255, 0, 0]

    def test_the_first_frame_of_an_animation(self) -> None:
        frames = [Image.new("RGB", (6, 6), name) for name in ("red", "lime", "blue")]
        data = encode(frames[0], save_all=True, append_images=frames[1:], duration=50)
        assert b"acTL" in data
        assert read_image(data)[:, 3, 3].tolist() == [255, 0, 0]

    def test_one_pixel_and_one_line(self) -> None:
        assert read_image(encode(Image.new("L", (1, 1), 9))).tolist() == [[[9]]]
        assert read_image(encode(Image.new("RGB", (3000, 1)))).shape == (3, 1, 3000)


class TestRefusals:
    def test_too_many_bytes(self) -> None:
        data = encode(Image.new("L", (4, 4))) + bytes(MAX_BYTES)
        with pytest.raises(ImageError, match=r"has 5\.0 MB; at most 5 MB"):
            read_image(data)

    @pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM"])
    def test_other_formats(self, kind: str) -> None:
        with pytest.raises(ImageError, match="not a PNG, JPEG or WebP"):
            read_image(encode(Image.new("RGB", (32, 32)), kind))

    @pytest.mark.parametrize(
        "data", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe", b"\0"]
    )
    def test_no_picture_at_all(self, data: bytes) -> None:
        with pytest.raises(ImageError, match="not a PNG, JPEG or WebP"):
            read_image(data)

    @pytest.mark.parametrize(
        ("width", "height"), [(2001, 2000), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 1)]
    )
    @pytest.mark.filterwarnings("error")
    def test_dimensions_are_read_before_decoding(
        self, width: int, height: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def decode(self: object) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decode)
        with pytest.raises(ImageError, match="more than 4 megapixels"):
            read_image(png(width, height, 8, 2, b""))

    def test_four_megapixels_are_accepted(self) -> None:
        assert read_image(encode(Image.new("1", (2000, 2000)))).shape == (1, 2000, 2000)

    @pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
    def test_no_pixels(self, width: int, height: int) -> None:
        with pytest.raises(ImageError):
            read_image(png(width, height, 8, 0, b""))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
    def test_truncated(self, kind: str, share: float, colours: np.ndarray) -> None:
        data = encode(Image.fromarray(colours), kind)
        with pytest.raises(ImageError, match=f"This {kind} file is damaged or cut off"):
            read_image(data[: int(len(data) * share)])

    def test_a_wrong_checksum(self, colours: np.ndarray) -> None:
        data = bytearray(encode(Image.fromarray(colours)))
        data[data.index(b"IHDR") + 4 + 3] ^= 1
        with pytest.raises(ImageError, match="damaged"):
            read_image(bytes(data))

    def test_a_text_bomb(self) -> None:
        bomb = chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(20_000_000)))
        with pytest.raises(ImageError, match="damaged"):
            read_image(png(1, 1, 8, 0, b"\x00\x00", bomb))

    def test_a_colour_profile_bomb(self) -> None:
        bomb = chunk(b"iCCP", b"k\x00\x00" + zlib.compress(bytes(20_000_000)))
        with pytest.raises(ImageError, match="damaged"):
            read_image(png(1, 1, 8, 0, b"\x00\x00", bomb))

    def test_a_scan_bomb(self) -> None:
        data = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
        start = data.rindex(b"\xff\xda")
        scan = data[start:-2]
        with pytest.raises(ImageError, match=f"more than {MAX_SCANS} scans"):
            read_image(data[:start] + scan * 2000 + data[-2:])

    def test_a_png_named_jpeg_and_back_is_judged_by_its_bytes(self) -> None:
        data = encode(Image.new("L", (4, 4), 5))
        with pytest.raises(ImageError, match="JPEG file is damaged"):
            read_image(b"\xff\xd8\xff" + data[3:])

    @pytest.mark.parametrize("chunk_name", [b"VP8X", b"VP8L", b"VP8 "])
    def test_a_webps_dimensions_are_read_before_pillow_opens_it(
        self, chunk_name: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def opened(*_: object, **__: object) -> None:
            raise AssertionError("opened")

        monkeypatch.setattr("PIL.Image.open", opened)
        with pytest.raises(ImageError, match=r"12,000×9,000, which is more than 4 megapixels"):
            read_image(webp_bomb(chunk_name, 12_000, 9_000))


def webp_bomb(chunk_name: bytes, width: int, height: int) -> bytes:
    """The head of a WebP file that says it is this large, and nothing behind it."""
    if chunk_name == b"VP8X":
        body = (
            b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        )
    elif chunk_name == b"VP8L":
        body = b"\x2f" + (width - 1 | (height - 1) << 14).to_bytes(4, "little") + bytes(5)
    else:
        body = b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    riff = b"WEBP" + chunk_name + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(riff)) + riff


def hostile_files() -> dict[str, bytes]:
    """Over 200 files that a careless or ill-meaning person could upload, by what they are."""
    rng = random.Random(0)
    colours = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    rgba = Image.fromarray(np.dstack([colours, colours[:, :, 0]]))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    frames = [Image.new("RGB", (31, 24), name) for name in ("red", "lime", "blue")]
    moving = {"save_all": True, "append_images": frames[1:], "duration": 50}
    wide = Image.fromarray(colours[:, :, 0].astype(np.uint16) * 257)
    good = {
        "PNG": encode(image),
        "palette PNG": encode(image.quantize(16)),
        "palette PNG with transparency": encode(image.quantize(16), transparency=3),
        "16-bit PNG": encode(wide),
        "PNG with alpha": encode(rgba),
        "animated PNG": encode(frames[0], **moving),
        "rotated PNG": encode(image, exif=rotated),
        "black and white PNG": encode(image.convert("1")),
        "JPEG": encode(image, "JPEG"),
        "progressive JPEG": encode(image, "JPEG", progressive=True),
        "CMYK JPEG": encode(image.convert("CMYK"), "JPEG"),
        "grey JPEG": encode(image.convert("L"), "JPEG"),
        "rotated JPEG": encode(image, "JPEG", exif=rotated),
        "WebP": encode(image, "WEBP"),
        "lossless WebP": encode(image, "WEBP", lossless=True),
        "WebP with alpha": encode(rgba, "WEBP"),
        "animated WebP": encode(frames[0], "WEBP", **moving),
        "rotated WebP": encode(image, "WEBP", exif=rotated),
    }
    files = dict(good)
    for name, data in good.items():
        for share in (0.02, 0.1, 0.35, 0.6, 0.95):
            files[f"{name}, cut off at {share}"] = data[: int(len(data) * share)]
        for number in range(4):
            damaged = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                damaged[rng.randrange(2, len(damaged))] = rng.randrange(256)
            files[f"{name}, damaged {number}"] = bytes(damaged)
        files[f"{name}, with text behind it"] = data + b"<script>alert(1)</script>" * 9
    for kind in ("GIF", "BMP", "TIFF", "ICO", "PPM", "PDF"):
        files[kind] = encode(image, kind)
    for name in (b"VP8X", b"VP8L", b"VP8 "):
        for size in ((16_000, 16_000), (1, 16_000), (5, 5)):
            files[f"{name!r} that says {size}"] = webp_bomb(name, *size)
    for size in ((2**31 - 1, 2**31 - 1), (60_000, 60_000), (0, 0), (1, 2**31 - 1), (30, 30)):
        for depth, colour in ((1, 0), (8, 2), (16, 6), (8, 3), (7, 9)):
            files[f"PNG that says {size}, {depth} bits, {colour}"] = png(*size, depth, colour, b"")
    zeros = zlib.compress(bytes(20_000_000))
    for name in (b"zTXt", b"iCCP", b"iTXt"):
        body = b"k\0\1\0\0\0" if name == b"iTXt" else b"k\0\0"
        files[f"{name!r} bomb"] = png(1, 1, 8, 0, b"\0\0", chunk(name, body + zeros))
    files["pixel bomb"] = png(30, 30, 8, 0, bytes(20_000_000))
    files["nothing"] = b""
    files["zeros"] = bytes(1000)
    files["too much"] = bytes(MAX_BYTES + 1)
    files["noise"] = rng.randbytes(1000)
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"):
        files[f"{start!r} alone"] = start
        files[f"{start!r} and noise"] = start + rng.randbytes(500)
    return files


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_over_200_hostile_files_each_give_a_picture_or_a_sentence() -> None:
    files = hostile_files()
    assert len(files) >= 200
    given = 0
    for name, data in files.items():
        try:
            pixels = read_image(data)
        except ImageError as error:
            assert str(error).endswith("."), name
            assert "\n" not in str(error), name
        else:
            given += 1
            assert pixels.dtype == np.uint8, name
            assert pixels.shape[0] in (1, 3), name
            assert pixels[0].size <= MAX_PIXELS, name
    assert 18 <= given < len(files)  # the 18 good ones, and what a reader can still make sense of


class TestNetworkInput:
    network = PRESETS["nin-slim-128"]

    def steps(self, pixels: np.ndarray, **changes: object):
        options = {
            "channels": 1,
            "side": 28,
            "network": self.network,
            "mean": (0.286,),
            "std": (0.353,),
        }
        return to_network_input(pixels, **(options | changes))

    def test_an_image_of_the_data_set_comes_back_as_it_was(self, greys: np.ndarray) -> None:
        import torch

        original = np.random.default_rng(1).integers(0, 256, (1, 28, 28), dtype=np.uint8)
        steps = self.steps(read_image(encode(Image.fromarray(original[0]))))
        np.testing.assert_array_equal(steps.pixels, original)
        expected = prepare(
            torch.from_numpy(original)[None],
            image_size=128,
            in_channels=1,
            mean=(0.286,),
            std=(0.353,),
            device=torch.device("cpu"),
        )
        assert steps.network_input.shape == (1, 128, 128)
        assert torch.equal(steps.network_input, expected[0])

    def test_the_middle_square_is_cut_out(self) -> None:
        pixels = np.zeros((1, 30, 90), np.uint8)
        pixels[:, :, 30:60] = 200
        steps = self.steps(pixels)
        assert steps.original is pixels
        np.testing.assert_array_equal(steps.square, np.full((1, 30, 30), 200))
        np.testing.assert_array_equal(steps.resized, np.full((1, 28, 28), 200))

    def test_fitting_keeps_all_of_it_on_the_colour_of_its_edge(self) -> None:
        pixels = np.full((1, 30, 90), 7, np.uint8)
        pixels[:, 10:20, 10:80] = 200
        steps = self.steps(pixels, square="fit")
        assert steps.square.shape == (1, 90, 90)
        np.testing.assert_array_equal(steps.square[:, 30:60], pixels)
        assert (steps.square[:, :30] == 7).all()
        assert (steps.square[:, 60:] == 7).all()
        line = np.full((1, 1, 1_000_000), 9, np.uint8)
        assert (self.steps(line, square="fit").pixels == 9).all()

    def test_shrinking_averages(self) -> None:
        checks = (np.indices((280, 280)).sum(axis=0) % 2 * 255).astype(np.uint8)[None]
        assert np.abs(self.steps(checks).resized.astype(int) - 127).max() <= 2

    def test_invert(self, greys: np.ndarray) -> None:
        steps = self.steps(greys[None], invert=True)
        np.testing.assert_array_equal(steps.pixels, 255 - steps.resized)

    def test_colour_becomes_luma_and_grey_becomes_colour(self) -> None:
        red = np.zeros((3, 40, 40), np.uint8)
        red[0] = 255
        steps = self.steps(red)
        assert steps.square.shape == (3, 40, 40)
        np.testing.assert_array_equal(steps.converted, np.full((1, 40, 40), 76))
        np.testing.assert_array_equal(steps.pixels, np.full((1, 28, 28), 76))
        cifar = PRESETS["nin-cifar10"]
        grey = np.full((1, 40, 40), 50, np.uint8)
        steps = self.steps(
            grey, channels=3, side=32, network=cifar, mean=(0.5,) * 3, std=(0.25,) * 3
        )
        np.testing.assert_array_equal(steps.pixels, np.full((3, 32, 32), 50))
        assert steps.network_input.shape == (3, 32, 32)

    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 4000), (1, 4000, 1), (1, 5, 5)])
    def test_any_shape(self, shape: tuple[int, int, int]) -> None:
        assert self.steps(np.full(shape, 9, np.uint8)).pixels.shape == (1, 28, 28)


def test_bright_backgrounds_are_seen() -> None:
    picture = np.zeros((1, 20, 20), np.uint8)
    picture[:, 5:15, 5:15] = 255
    assert not has_bright_background(picture)
    assert has_bright_background(255 - picture)
    assert has_bright_background(np.full((3, 1, 1), 255, np.uint8))
