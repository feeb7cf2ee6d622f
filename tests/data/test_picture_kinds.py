"""Kinds of pictures beyond the usual ones, colour modes beyond grey and RGB, and how much of a file is read."""

import io
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from engine.config.contract import InputSpec
from engine.config.data import DataConfig
from engine.config.decoding import Decoding
from engine.data.contract import input_spec
from engine.data.load import load_splits
from engine.data.pictures.images import decode_picture, fit_images, read_picture
from engine.data.pictures.opening import open_picture
from engine.data.sources import files
from engine.errors import InputError

DRAW = np.random.default_rng(0)
COLOR = np.clip(np.indices((60, 80)).sum(0)[..., None] + [0, 40, 80], 0, 255).astype(np.uint8)
RGBA = np.concatenate([COLOR, DRAW.integers(0, 256, (60, 80, 1), np.uint8)], -1)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, **options)
    return file.getvalue()


# Kinds


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read():
    shown = read_picture(encoded(Image.fromarray(COLOR), "avif", quality=100), InputSpec((60, 80, 3)))
    assert np.abs(shown.astype(int) - COLOR).mean() < 3


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
@pytest.mark.parametrize("name", ["a.jp2", "a.j2k"])
def test_jpeg_2000_is_read(tmp_path: Path, name: str):
    Image.fromarray(COLOR).save(tmp_path / name)
    np.testing.assert_array_equal(read_picture(tmp_path / name, InputSpec((60, 80, 3))), COLOR)


def test_heic_is_read():
    shown = read_picture(heic(Image.fromarray(COLOR)), InputSpec((60, 80, 3)))
    assert np.abs(shown.astype(int) - COLOR).mean() < 3


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_heic_is_turned_upright_once(orientation: int):
    exif = Image.Exif()
    exif[0x112] = orientation
    shown = open_picture(heic(Image.fromarray(COLOR), exif=exif.tobytes()))
    assert shown.size == ((80, 60) if orientation == 1 else (60, 80))


def folder(root: Path, **files: bytes) -> DataConfig:
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        Image.fromarray(COLOR).save(root / name / "0.png")
    for name, data in files.items():
        (root / "a" / name.replace("_", ".")).write_bytes(data)
    return DataConfig(path=root, validation_fraction=0, cache_dir=root.parent / "cache")


def test_heic_without_its_reader_is_left_out_counted_and_told_what_to_install(tmp_path: Path, monkeypatch: Any):
    config = folder(tmp_path / "data", phone_HEIC=heic(Image.fromarray(COLOR)), other_heic=heic(Image.fromarray(COLOR)))
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    monkeypatch.setattr(files, "optional_readers", lambda: ())
    said: list[str] = []
    train = load_splits(config, 0, said.append).train
    assert len(train) == 2
    assert any("2 of 4 pictures cannot be read here and are left out (2 HEIC)" in text for text in said)
    assert all("pip install pillow-heif" in line for line in train.skipped)
    with pytest.raises(InputError, match=r"phone\.HEIC: got a HEIC picture.* Run: pip install pillow-heif\."):
        read_picture(tmp_path / "data" / "a" / "phone.HEIC", InputSpec((60, 80, 3)))
    monkeypatch.undo()
    assert len(load_splits(config, 0, said.append).train) == 4  # not from the cache: now they can be read


def test_damaged_picture_of_a_usual_kind_still_stops_a_run(tmp_path: Path):
    config = folder(tmp_path / "data", x_heic=b"\0\0\0\x18ftypheic" + bytes(200), bad_png=b"\x89PNG\r\n\x1a\nxx")
    with pytest.raises(InputError, match=r"2 unreadable files of 4"):
        load_splits(config, 0, str)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"\xff\x0a123", "a JPEG XL picture"), (b"8BPS\0\1", "a Photoshop document"), (bytes(128) + b"DICM", "a DICOM"),
     (b"<!DOCTYPE html>", "an HTML page"), (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
     (b"<svg xmlns=''>", "an SVG"), (b"hello", "a file that is not an image")],
)  # fmt: skip
def test_what_is_no_picture_is_named(data: bytes, kind: str):
    with pytest.raises(InputError, match=kind):
        open_picture(data)


# Colour modes


@pytest.mark.parametrize("color", ["rgba", "la", "cmyk", "lab"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"])
def test_picture_of_any_mode_becomes_any_colour_mode(color: Any, mode: str):
    shown = decode_picture(Image.new(mode, (5, 4)), color, None, None, (0, 0, 0))
    assert shown.shape == (4, 5, {"rgba": 4, "la": 2, "cmyk": 4, "lab": 3}[color])


def test_channels_of_the_models_mode_are_kept_as_they_are():
    image = Image.fromarray(RGBA)
    cmyk = Image.frombytes("CMYK", (80, 60), RGBA.tobytes())
    for picture, color in ((image, "rgba"), (encoded(image, "png"), "rgba"), (cmyk, "cmyk")):
        spec = InputSpec((60, 80, 4), color=color)  # type: ignore[arg-type]
        np.testing.assert_array_equal(read_picture(picture, spec), RGBA)


def test_picture_without_opacity_is_opaque_to_a_model_of_four_channels():
    shown = read_picture(Image.fromarray(COLOR), InputSpec((60, 80, 4)))
    np.testing.assert_array_equal(shown, np.concatenate([COLOR, np.full((60, 80, 1), 255)], -1))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_files_and_arrays_of_several_channels_are_resized_alike(channels: int):
    levels = RGBA[..., :channels] if channels > 2 else RGBA[..., [0, 3]]
    image = Image.frombytes({2: "LA", 3: "RGB", 4: "RGBA"}[channels], (80, 60), levels.tobytes())
    spec = InputSpec((20, 30, channels), resize="stretch")
    np.testing.assert_array_equal(read_picture(encoded(image, "png"), spec), read_picture(levels, spec))


def test_model_of_five_channels_refuses_files_and_takes_arrays():
    spec = InputSpec((4, 4, 5))
    with pytest.raises(InputError, match=r"expected an array of 4×4×5 \(uint8\), the model's input\. Pass arrays\."):
        read_picture(Image.fromarray(COLOR), spec)
    assert read_picture(np.zeros((4, 4, 5), np.uint8), spec).shape == (4, 4, 5)


def test_folder_is_trained_on_in_the_mode_that_is_set(tmp_path: Path):
    config = folder(tmp_path / "data")
    for number in range(2):
        Image.fromarray(RGBA).save(tmp_path / "data" / "ab"[number] / "0.png")
    config = DataConfig(path=config.path, cache_dir=config.cache_dir, color="rgba", validation_fraction=0)
    train = load_splits(config, 0, str).train
    np.testing.assert_array_equal(train.images[0], RGBA)
    assert input_spec(config, train).color == "rgba"


def test_arrays_are_converted_only_where_they_have_other_channels():
    images = RGBA[None]
    assert fit_images(images, DataConfig(color="cmyk")) is images
    expected = np.asarray(Image.fromarray(RGBA[..., :3]).convert("L"))[..., None]
    opaque = np.concatenate([COLOR, np.full((60, 80, 1), 255, np.uint8)], -1)[None]
    np.testing.assert_array_equal(fit_images(opaque, DataConfig(color="grayscale"))[0], expected)


# Limits


def test_limit_of_pixels_counts_what_is_decoded_of_a_jpeg():
    data = encoded(Image.new("RGB", (1600, 1600)), "jpeg")
    small, few = ("rgb", (100, 100), "stretch", (0, 0, 0)), Decoding(max_pixels=100_000)
    for color in ("rgb", "grayscale"):
        assert decode_picture(data, color, (100, 100), "stretch", (0, 0, 0), few).shape[:2] == (100, 100)  # 200×200
    progressive = encoded(Image.new("RGB", (1600, 1600)), "jpeg", progressive=True)
    for whole in (progressive, encoded(Image.new("RGB", (1600, 1600)), "png")):  # held whole, whatever is drafted
        with pytest.raises(InputError, match=r"1600×1600 .* at most 100,000 .*--data\.max-pixels 2560000"):
            decode_picture(whole, *small, few)
        assert decode_picture(whole, *small, Decoding(max_pixels=2_560_000)).shape == (100, 100, 3)
    with pytest.raises(InputError, match=r"at most 100,000"):
        decode_picture(data, "rgb", None, None, (0, 0, 0), few)


def test_limit_of_training_holds_for_prediction_if_it_is_larger(monkeypatch: Any):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="at most 1,000 pixels"):
        read_picture(
            Image.fromarray(COLOR).tobytes() and encoded(Image.fromarray(COLOR), "png"), InputSpec((60, 80, 3))
        )
    assert read_picture(encoded(Image.fromarray(COLOR), "png"), InputSpec((60, 80, 3), max_pixels=4800)).any()


def test_jpegs_are_not_drafted_where_another_library_would_not():
    image = Image.fromarray(np.tile(DRAW.integers(0, 256, (32, 32, 3), np.uint8), (20, 20, 1)))
    data, whole = encoded(image, "jpeg", quality=95), Decoding("bilinear", antialias=False)
    shown = decode_picture(data, "rgb", (64, 64), "stretch", (0, 0, 0), whole)
    expected = decode_picture(open_picture(data), "rgb", (64, 64), "stretch", (0, 0, 0), whole)
    np.testing.assert_array_equal(shown, expected)


# What is read beside pixels


def traced(call: Any) -> tuple[Any, int]:
    """(what it raises or None, most bytes)"""
    tracemalloc.start()
    error = None
    try:
        call()
    except InputError as raised:
        error = raised
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return error, most


@pytest.mark.parametrize("place", ["before", "after"])
def test_huge_chunk_of_a_png_is_not_read(tmp_path: Path, place: str):
    data, file = encoded(Image.fromarray(COLOR), "png"), tmp_path / "a.png"
    cut = 33 if place == "before" else len(data) - 12
    with file.open("wb") as out:
        out.write(
            data[:cut]
            + struct.pack(">I", 2**31 - 1)
            + b"iCCP"[: 4 if place == "before" else 0]
            + b"abCd"[: 0 if place == "before" else 4]
        )
        out.seek(2**31 - 1, io.SEEK_CUR)  # a hole, which takes no room on the disk
        out.write(b"\0\0\0\0" + data[cut:])
    error, most = traced(lambda: open_picture(file))
    assert most < 2**28 + 2**26
    assert error is None or "more beside its pixels than any picture needs" in str(error)


@pytest.mark.parametrize("blank", [b" ", b"#" + b"x" * 60 + b"\n"])
@pytest.mark.parametrize("place", ["header", "pixels"])
def test_blanks_of_a_ppm_are_not_read_without_end(blank: bytes, place: str):
    """By the megabyte they take seconds; a handful is part of the format."""
    for count, is_refused in ((10, False), (2**21, True)):
        blanks = blank * (count // len(blank) + 1)
        at_header, at_pixels = (blanks, b"") if place == "header" else (b"", blanks)
        data = b"P2\n4 4 " + at_header + b"255\n" + at_pixels + b"1 " * 16
        error, most = traced(lambda data=data: open_picture(data))
        assert (error is not None) == is_refused
        assert most < 2**24
