"""Pictures of more than 8 bits, signed or with fractions: nothing of what they hold is lost without a word."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import engine
from engine.config.contract import InputSpec
from engine.config.data import DataConfig
from engine.config.decoding import Decoding
from engine.data import held_out
from engine.data.contract import input_spec
from engine.data.load import load_splits
from engine.data.pictures.deep import usual_range
from engine.data.pictures.images import decode_picture, read_picture
from engine.data.sources.folder import open_folder
from engine.errors import InputError
from tests.commands.test_data import command

RAMP = np.linspace(0, 1, 40 * 30).reshape(40, 30)
LEVELS = np.rint(RAMP * 255).astype(np.uint8)
COLOR = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)


def saved(values: np.ndarray, kind: str = "tiff") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def png(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits, uint16[h w c], each row as differences from the pixel before (filter 1)."""
    height, width, channels = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, width, 2 * channels)
    rows = np.diff(rows.astype(int), axis=1, prepend=0).astype(np.uint8).reshape(height, -1)
    data = zlib.compress(b"".join(b"\1" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def decoded(data: bytes, levels: Any = None, color: Any = "rgb") -> np.ndarray:
    return decode_picture(data, color, None, None, (0, 0, 0), Decoding(levels=levels))


def scaled(values: np.ndarray, top: int) -> np.ndarray:
    return np.rint(values * top).astype(np.uint16)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("make", [png, tiff, lambda v: tiff(v, compression="zlib"), lambda v: tiff(v, byteorder=">")])
def test_color_picture_of_16_bits_keeps_the_levels_of_its_range(bits: int, make: Any):
    top = 2**bits - 1
    values = scaled(COLOR, top)
    shown = decoded(make(values, photometric="rgb") if make is tiff else make(values), (0, top))
    np.testing.assert_array_equal(shown, np.rint(values * (255 / top)))


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_of_16_bits_is_kept(channels: int):
    alpha = scaled(RAMP, 65535)[..., None]
    values = np.concatenate([scaled(COLOR[..., : channels - 1], 4095), alpha], -1)
    shown = decoded(png(values), (0, 4095), {2: "la", 4: "rgba"}[channels])
    np.testing.assert_array_equal(shown[..., :-1], np.rint(values[..., :-1] * (255 / 4095)))
    np.testing.assert_array_equal(shown[..., -1:], np.rint(alpha / 257))


def test_transparent_level_of_16_bits_is_laid_over_the_background():
    values = scaled(RAMP, 4095)[..., None]
    data = png(values, (b"tRNS", struct.pack(">H", int(values[0, 5, 0]))))
    shown = decode_picture(data, "grayscale", None, None, (200, 200, 200), Decoding(levels=(0, 4095)))[..., 0]
    expected = np.rint(values[..., 0] * (255 / 4095))
    expected[values[..., 0] == values[0, 5, 0]] = 200
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize(
    ("values", "tags", "expected"),
    [
        (scaled(RAMP, 4095), [(281, "H", 1, 4095)], (0, 4095)),
        (scaled(RAMP, 900), [(280, "H", 1, 0), (281, "H", 1, 4095)], (0, 4095)),
        (scaled(RAMP, 900) + 100, [(280, "H", 1, 100), (281, "H", 1, 1000)], (100, 1000)),
        (RAMP.astype(np.float32) * 3, [(340, "f", 1, 0.0), (341, "f", 1, 3.0)], (0, 3)),
        ((RAMP * 4000 - 1000).astype(np.int16), [(340, "h", 1, -1000), (341, "h", 1, 3000)], (-1000, 3000)),
    ],
)
def test_range_is_that_of_the_tags(values: np.ndarray, tags: list[Any], expected: tuple[float, float]):
    data = tiff(values, extratags=[(*tag, True) for tag in tags])
    low, high = expected
    wanted = np.rint((values.astype(float) - low) * 255 / (high - low))
    assert np.abs(decoded(data, color="grayscale")[..., 0] - wanted).max() <= (values.dtype == np.float32)


def test_range_that_is_set_goes_before_that_of_the_tags():
    data = tiff(scaled(RAMP, 4095), extratags=[(281, "H", 1, 65535, True)])
    np.testing.assert_array_equal(
        decoded(data, (0, 4095), "grayscale")[..., 0], np.rint(scaled(RAMP, 4095) / 4095 * 255)
    )


def test_picture_whose_white_is_zero_is_turned_round():
    data = tiff(scaled(RAMP, 4095), photometric="miniswhite")
    np.testing.assert_array_equal(
        decoded(data, (0, 4095), "grayscale")[..., 0], 255 - np.rint(scaled(RAMP, 4095) / 4095 * 255)
    )


def test_signed_bytes_are_not_taken_for_unsigned_ones():
    values = (LEVELS.astype(int) - 128).astype(np.int8)
    np.testing.assert_array_equal(decoded(tiff(values), (-128, 127), "grayscale")[..., 0], LEVELS)


def test_large_unsigned_numbers_are_not_taken_for_negative_ones():
    values = (RAMP * (2**32 - 1)).astype(np.uint32)
    shown = decoded(tiff(values), (0, 2**32 - 1), "grayscale")[..., 0]
    np.testing.assert_allclose(shown, values / (2**32 - 1) * 255, atol=0.51)


@given(st.integers(1, 31), st.integers(0, 2**31))
def test_usual_range_of_whole_numbers_holds_them_and_is_of_a_usual_number_of_bits(bits: int, seed: int):
    highest = seed % 2**bits
    low, high = usual_range(0, highest, True)
    assert low == 0
    assert highest <= high
    assert high in [2**b - 1 for b in (1, 2, 4, 8, 10, 12, 14, 16, 24, 31)]


@pytest.mark.parametrize(
    ("extremes", "expected"),
    [((0, 1), (0, 1)), ((0.1, 0.6), (0, 1)), ((-0.9, 0.2), (-1, 1)), ((0, 1.02), (0, 1.1)), ((0, 200), (0, 255)),
     ((0, 60000), (0, 65535)), ((20.3, 35.2), (20, 36)), ((0, 0.03), (0, 0.03)), ((-1024, 3071), (-1100, 3100)),
     ((0, 0), (0, 1))],
)  # fmt: skip
def test_usual_range_of_other_numbers(extremes: tuple[float, float], expected: tuple[float, float]):
    assert usual_range(*extremes, False) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_usual_range_holds_what_it_is_found_for(low: float, length: float):
    found = usual_range(low, low + length, False)
    assert found[0] <= low + 1e-9 * abs(low) + 1e-300  # of the least number there is, 0 is as near as any
    assert low + length <= found[1] + 1e-9 * abs(low + length)


# Datasets


def folder(root: Path, values: dict[str, list[np.ndarray]], kind: str = "png") -> DataConfig:
    for name, images in values.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{number}.{kind}")
    return DataConfig(path=root, validation_fraction=0, cache_dir=root.parent / "cache")


def test_dataset_has_one_range_that_is_reported_each_time(tmp_path: Path):
    dark, bright = scaled(RAMP, 700), scaled(RAMP, 3900)
    config = folder(tmp_path / "data", {"a": [dark], "b": [bright]})
    for _ in range(2):
        said: list[str] = []
        train = load_splits(config, 0, said.append).train
        (note,) = [text for text in said if "more than 8 bits" in text]
        assert "2 pictures" in note
        assert "hold 0 to 3900, so 0 to 4095 is taken: --data.levels 0 4095" in note
        np.testing.assert_array_equal(train.images[0][..., 0], np.rint(dark / 4095 * 255))
        assert input_spec(config, train).levels == (0, 4095)


def test_range_found_in_training_holds_for_the_test_split(tmp_path: Path):
    folder(tmp_path / "data" / "train", {"a": [scaled(RAMP, 3900)], "b": [scaled(RAMP, 3800)]})
    config = folder(tmp_path / "data" / "test", {"a": [scaled(RAMP, 700)], "b": [scaled(RAMP, 600)]})
    splits = load_splits(DataConfig(path=tmp_path / "data", validation_fraction=0, cache_dir=config.cache_dir), 0, str)
    assert splits.test is not None
    np.testing.assert_array_equal(splits.test.images[0][..., 0], np.rint(scaled(RAMP, 700) / 4095 * 255))


def test_picture_beyond_the_range_of_training_is_refused_with_a_range_that_helps(tmp_path: Path):
    config = folder(tmp_path / "data", {"a": [scaled(RAMP, 9000)], "b": [scaled(RAMP, 4095)]})
    with pytest.raises(InputError, match=r"1 unreadable file of 2"):
        load_splits(DataConfig(path=config.path, levels=(0, 4095), cache_dir=config.cache_dir), 0, str)
    spec = InputSpec((40, 30, 1), levels=(0, 4095))
    with pytest.raises(InputError, match=r"levels from 0 to 9000 \(uint16\); expected levels from 0 to 4095.* 0 9000"):
        read_picture(saved(scaled(RAMP, 9000)), spec)
    shown = read_picture(saved(scaled(RAMP, 9000)), spec, (0, 9000))[..., 0]
    np.testing.assert_allclose(shown, RAMP * 255, atol=0.52)


def test_pictures_with_ranges_of_their_own_are_reported(tmp_path: Path):
    for number, top in enumerate((4095, 1023)):
        (tmp_path / "data" / "ab"[number]).mkdir(parents=True)
        file = tmp_path / "data" / "ab"[number] / "0.tif"
        file.write_bytes(tiff(scaled(RAMP, top), extratags=[(281, "H", 1, top, True)]))
    said: list[str] = []
    config = DataConfig(path=tmp_path / "data", validation_fraction=0, cache_dir=tmp_path / "cache")
    train = load_splits(config, 0, said.append).train
    assert any("2 pictures of more than 8 bits have 2 ranges in their tags" in text for text in said)
    assert train.images[0].max() == train.images[1].max() == 255
    (tmp_path / "data" / "a" / "1.tif").write_bytes(tiff(scaled(RAMP, 500)))
    with pytest.raises(InputError, match=r"data\.levels: got 1 picture .* without a range, others with 2 different"):
        open_folder(config, str).load("train", "data.split")


def test_single_picture_without_a_range_is_refused_unless_it_leaves_no_doubt():
    spec = InputSpec((40, 30, 1), levels=None)
    with pytest.raises(InputError, match=r"value_range=\(0, 4095\), --value-range 0 4095"):
        read_picture(saved(scaled(RAMP, 4095), "png"), spec)
    for values in (scaled(RAMP, 65535), RAMP.astype(np.float32), (RAMP * 255).astype(np.float32)):
        np.testing.assert_allclose(read_picture(saved(values), spec)[..., 0], LEVELS, atol=1)
    np.testing.assert_allclose(read_picture(saved(scaled(RAMP, 4095)), spec, (0, 4095))[..., 0], LEVELS, atol=1)


def test_picture_with_a_nan_is_refused():
    values = RAMP.astype(np.float32)
    values[3, 3] = np.nan
    with pytest.raises(InputError, match="NaN or infinity among its levels"):
        decoded(saved(values), (0, 1))


def test_model_saved_before_reads_deep_pictures_as_it_did():
    spec = InputSpec((40, 30, 1))  # as from a record without levels
    values = scaled(RAMP, 4095)
    np.testing.assert_array_equal(read_picture(saved(values), spec)[..., 0], np.rint(values.astype(np.float32) / 257))


def test_run_on_deep_pictures_predicts_and_evaluates_with_the_range_of_training(
    tmp_path: Path, capsys: Any, monkeypatch: Any
):
    bright, dark = [scaled(RAMP, 4000 + i) for i in range(6)], [scaled(RAMP, 300 + i) for i in range(6)]
    config = folder(tmp_path / "data", {"bright": bright, "dark": dark})
    engine.fit(engine.mlp((8,)), config, epochs=1, batch_size=4, verbose=False).save(tmp_path / "run")
    classifier = engine.restore(tmp_path / "run")
    assert classifier.input_spec.levels == (0, 4095)
    files = sorted((tmp_path / "data").glob("*/*.png"))
    levels = np.stack([np.rint(values / 4095 * 255) for values in (*bright, *dark)]).astype(np.uint8)
    expected = classifier.predict_proba(np.repeat(levels[..., None], 3, -1))
    for pictures in (files, [Image.open(file) for file in files]):
        np.testing.assert_array_equal(classifier.predict_proba(pictures), expected)
    seen, own = list[DataConfig](), held_out.open_source
    monkeypatch.setattr(held_out, "open_source", lambda config, tell: (seen.append(config), own(config, tell))[1])
    folder(tmp_path / "other", {"bright": dark[:2], "dark": dark})  # by themselves they would be read as of 10 bits
    command(capsys, "eval", tmp_path / "run", "--data.path", tmp_path / "other", "--data.split", "train")
    assert [config.levels for config in seen] == [(0, 4095)]


def test_array_of_a_deep_picture_has_the_range_that_the_training_files_had():
    spec, values = InputSpec((40, 30, 1), levels=(0, 4095)), scaled(RAMP, 4095)
    np.testing.assert_array_equal(read_picture(values, spec), read_picture(saved(values, "png"), spec))
    with pytest.raises(InputError, match="uint8, or a value_range"):
        read_picture(values, InputSpec((40, 30, 1)))


def test_one_picture_with_nan_does_not_make_the_others_black(tmp_path):
    for number, name in enumerate(("a/0", "a/1", "b/2")):
        values = RAMP.astype(np.float32).copy()
        values[0, 0] = np.nan if number == 0 else 0
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.tif").write_bytes(saved(values))
    config = DataConfig(path=tmp_path, on_bad_file="skip", cache_dir=tmp_path / ".cache")
    found = open_folder(config, lambda text: None).load("train", "data.split")
    assert found.levels == (0, 1)
    assert len(found.skipped) == 1
    assert np.asarray(found.images).max(axis=(1, 2, 3)).tolist() == [255, 255]


def test_allowed_pictures_above_the_usual_limit_say_what_is_white(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(png(np.rint(RAMP * 4095).astype(np.uint16)[..., None]))
    config = DataConfig(path=tmp_path, max_pixels=10_000, cache_dir=tmp_path / ".cache")
    assert open_folder(config, lambda text: None).load("train", "data.split").levels == (0, 4095)
