"""Pictures of every kind become the array of the input contract, or are refused with a reason."""

import contextlib
import io
import itertools
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from engine.config.contract import InputSpec
from engine.data.pictures import opening
from engine.data.pictures.images import decode_picture, fit_picture, is_picture_name, read_picture, read_pictures
from engine.data.pictures.opening import open_levels, open_picture, picture_height_width
from engine.errors import InputError

DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (6, 9), dtype=np.uint8)
COLOR = DRAW.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY_SPEC = InputSpec((6, 9, 1))
COLOR_SPEC = InputSpec((6, 9, 3))
ORIENTATION = 0x112


def encoded(image: Image.Image | np.ndarray, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "gif"])
def test_grey_picture_keeps_its_pixels_when_stored_without_loss(kind: str):
    np.testing.assert_array_equal(read_picture(encoded(GREY, kind), GREY_SPEC), GREY[..., None])


@pytest.mark.parametrize(("kind", "options"), [("png", {}), ("bmp", {}), ("tiff", {}), ("webp", {"lossless": True})])
def test_color_picture_keeps_its_pixels_when_stored_without_loss(kind: str, options: dict[str, Any]):
    image = read_picture(encoded(COLOR, kind, **options), COLOR_SPEC)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, COLOR)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_picture_is_what_pillow_decodes_when_stored_with_loss(kind: str):
    data = encoded(COLOR, kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(read_picture(data, COLOR_SPEC), expected)


def test_grey_picture_is_repeated_over_channels_when_the_model_wants_color():
    np.testing.assert_array_equal(read_picture(encoded(GREY), COLOR_SPEC), np.repeat(GREY[..., None], 3, 2))


def test_color_picture_becomes_its_luminance_when_the_model_wants_grey():
    luminance = COLOR @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(read_picture(encoded(COLOR), GREY_SPEC)[..., 0], luminance, atol=1)


def test_palette_picture_shows_the_colors_of_its_palette():
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    colors = np.array([[10, 20, 30], [200, 0, 50], [255, 255, 0]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())  # turns the mode into P
    np.testing.assert_array_equal(read_picture(encoded(image), InputSpec((2, 2, 3))), colors[indices])


def test_palette_picture_is_black_where_its_palette_is_transparent():
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 200, 0, 50])
    expected = np.array([[[10, 20, 30], [0, 0, 0]]])
    np.testing.assert_array_equal(read_picture(encoded(image, transparency=1), InputSpec((1, 2, 3))), expected)


def test_transparent_color_picture_is_laid_over_black():
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8)
    image = read_picture(encoded(pixels), InputSpec((1, 3, 3)))
    np.testing.assert_array_equal(image[0, :2], [[200, 100, 50], [0, 0, 0]])
    np.testing.assert_allclose(image[0, 2], np.array([200, 100, 50]) * 128 / 255, atol=1)


def test_transparent_grey_picture_is_laid_over_black():
    pixels = np.array([[[200, 255], [200, 0], [200, 128]]], np.uint8)
    image = read_picture(encoded(Image.frombytes("LA", (3, 1), pixels.tobytes())), InputSpec((1, 3, 1)))
    np.testing.assert_allclose(image[0, :, 0], [200, 0, 200 * 128 / 255], atol=1)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_picture_is_divided_by_257(kind: str):
    pixels = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    image = read_picture(encoded(pixels, kind), InputSpec((1, 6, 1)))
    np.testing.assert_array_equal(image[0, :, 0], [0, 0, 1, 1, 128, 255])


def test_two_valued_picture_becomes_black_and_white():
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    np.testing.assert_array_equal(read_picture(encoded(image), InputSpec((1, 2, 1)))[0, :, 0], [255, 0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "F"])
@pytest.mark.parametrize("color", ["grayscale", "rgb"])
def test_picture_of_any_mode_fits_the_contract(mode: str, color: Any):
    image = fit_picture(Image.new(mode, (5, 4)), color, (4, 5), None)
    assert image.shape == (4, 5, 3 if color == "rgb" else 1)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16", "F"])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_picture_without_pixels_is_refused(mode: str, size: tuple[int, int]):
    for rule in ("stretch", None):
        with pytest.raises(InputError, match=r"expected"):
            read_picture(Image.new(mode, size), InputSpec((4, 4, 3), resize=rule))


@pytest.mark.parametrize(("mode", "plain"), [("La", "LA"), ("RGBa", "RGBA")])
def test_picture_divided_by_its_opacity_is_that_before(mode: str, plain: str):
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).convert(plain)
    spec = InputSpec((8, 8, len(plain)))
    np.testing.assert_array_equal(read_picture(picture.convert(mode), spec), np.asarray(picture))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, GREY), (2, GREY[:, ::-1]), (3, GREY[::-1, ::-1]), (4, GREY[::-1]), (5, GREY.T), (6, np.rot90(GREY, -1)),
     (7, np.rot90(GREY, 2).T), (8, np.rot90(GREY))],
)  # fmt: skip
def test_picture_is_turned_upright_when_exif_says_how(orientation: int, upright: np.ndarray):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = encoded(GREY, exif=exif)
    np.testing.assert_array_equal(read_picture(stored, InputSpec((*upright.shape, 1)))[..., 0], upright)


def test_pil_image_is_turned_upright_like_its_file():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    with Image.open(io.BytesIO(encoded(GREY, exif=exif))) as image:
        np.testing.assert_array_equal(read_picture(image, InputSpec((9, 6, 1)))[..., 0], np.rot90(GREY, -1))


def test_picture_is_the_same_from_path_text_bytes_and_pil(tmp_path: Path):
    file = tmp_path / "an ïmage.png"
    file.write_bytes(encoded(COLOR))
    images = read_pictures([file, str(file), file.read_bytes(), Image.open(file), COLOR], COLOR_SPEC)
    np.testing.assert_array_equal(images, np.stack([COLOR] * 5))


def test_file_is_closed_after_reading(tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(encoded(COLOR))
    image = open_picture(file)  # an open file would raise ResourceWarning, an error here
    file.unlink()
    np.testing.assert_array_equal(np.asarray(image), COLOR)


def test_text_named_jpg_is_refused_as_no_image(tmp_path: Path):
    file = tmp_path / "notes.jpg"
    file.write_text("not a picture")
    with pytest.raises(InputError, match=r"notes\.jpg: got a file that is not an image; expected JPEG, PNG"):
        open_picture(file)


@pytest.mark.parametrize("data", [b"n", b"not a picture", b"RIFF0000WAVEfmt ", b"BMx", b"II*\0" + bytes(30)])
def test_bytes_are_refused_when_they_are_no_image(data: bytes):
    with pytest.raises(InputError, match=rf"{len(data)} bytes: got .*; expected .*emove it\."):
        open_picture(data)


def test_empty_file_is_refused_with_that_reason(tmp_path: Path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"a\.png: got an empty file; expected a readable, complete image"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"^0 bytes: got an empty file"):
        open_picture(b"")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_refused_with_that_reason(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(encoded(GREY))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(InputError, match=r"a\.png: got Permission denied"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff"])
def test_truncated_picture_is_refused(kind: str):
    pixels = DRAW.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    data = encoded(pixels, kind)
    with pytest.raises(InputError, match=r"bytes: got .*; expected "):
        open_picture(data[: len(data) // 2])


def test_truncated_pil_image_is_refused():
    data = encoded(DRAW.integers(0, 256, (80, 80, 3), dtype=np.uint8), "jpeg")
    with (
        Image.open(io.BytesIO(data[: len(data) // 2])) as image,
        pytest.raises(InputError, match=r"truncated.*; expected a readable, complete image"),
    ):
        read_picture(image, InputSpec((80, 80, 3)))


def test_missing_file_is_refused_with_its_name(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere\.png: got .*No such file.*Check the path\."):
        open_picture(tmp_path / "nowhere.png")


def test_folder_is_refused_as_a_picture(tmp_path: Path):
    with pytest.raises(InputError, match="a folder"):
        open_picture(tmp_path)


def bomb(height: int, width: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("side", [9460, 20_000, 100_000])
def test_decompression_bomb_is_refused_and_not_only_warned_of(side: int):
    rule = rf"bytes: got {side}×{side} pixels; expected at most 89,478,485 pixels in all\. Make it smaller"
    with pytest.raises(InputError, match=rule):
        open_picture(bomb(side, side))


def test_limit_of_pixels_is_pillows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 53)
    for data in (encoded(GREY), encoded(COLOR, "jpeg")):
        with pytest.raises(InputError, match=r"got 6×9 pixels; expected at most 53 pixels"):
            open_picture(data, "rgb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 54)
    assert open_picture(encoded(GREY)).size == (9, 6)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_picture(encoded(GREY)).size == (9, 6)


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "tiff", "bmp", "ppm"])
def test_damaged_picture_is_read_or_refused_but_raises_nothing_else(kind: str):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {"exif": exif} if kind in ("jpeg", "png", "webp", "tiff") else {}
    data = encoded(Image.fromarray(DRAW.integers(0, 256, (20, 30, 3), dtype=np.uint8)), kind, **options)
    for _ in range(150):
        damaged = bytearray(data)
        for place in DRAW.integers(0, min(len(data), 400), 3):
            damaged[place] = DRAW.integers(0, 256)
        with contextlib.suppress(InputError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decode_picture(bytes(damaged[: DRAW.integers(1, len(data))]), "rgb", (8, 8), "stretch", (0, 0, 0))
        with contextlib.suppress(InputError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture_height_width(bytes(damaged))


def test_other_size_is_refused_with_both_sizes_and_the_remedy(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(encoded(COLOR))
    with pytest.raises(InputError, match=r"a\.png: got an image of 6×9×3; expected 28×28×1\. .*--resize stretch"):
        read_picture(tmp_path / "a.png", InputSpec((28, 28, 1)))


def test_array_keeps_its_pixels_and_may_leave_out_the_grey_channel():
    np.testing.assert_array_equal(read_picture(GREY, GREY_SPEC), GREY[..., None])
    np.testing.assert_array_equal(read_picture(COLOR, COLOR_SPEC), COLOR)


@pytest.mark.parametrize("array", [GREY[:5], GREY.T, COLOR, COLOR[None]], ids=["5×9", "9×6", "color", "batch"])
def test_array_of_other_shape_is_refused_with_both_shapes(array: np.ndarray):
    with pytest.raises(InputError, match=r"image array: got an image of [\d×]+; expected 6×9×1\."):
        read_picture(array, GREY_SPEC)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_array_of_other_dtype_is_refused_with_both_dtypes(dtype: str):
    with pytest.raises(
        InputError, match=rf"image array: got {dtype} from \d+ to \d+; expected uint8, or a value_range"
    ):
        read_picture(GREY.astype(dtype), GREY_SPEC)


def test_float_array_fits_a_model_of_float_inputs():
    features = np.linspace(-1, 1, 5, dtype=np.float32)
    np.testing.assert_array_equal(read_picture(features, InputSpec((5,), "float32")), features)
    with pytest.raises(InputError, match=r"image array: got float64; expected float32"):
        read_picture(features.astype(np.float64), InputSpec((5,), "float32"))


def test_bad_pictures_are_all_named_when_there_are_few():
    with pytest.raises(InputError) as raised:
        read_pictures([encoded(GREY), b"1", encoded(GREY), b"22"], GREY_SPEC)
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == ["1 bytes", "2 bytes"]


@pytest.mark.parametrize(("count", "last"), [(10, None), (11, "… and 1 more"), (25, "… and 15 more")])
def test_first_ten_bad_pictures_are_named_and_the_rest_counted(count: int, last: str | None):
    with pytest.raises(InputError) as raised:
        read_pictures([encoded(GREY), *(bytes(i) for i in range(1, count + 1))], GREY_SPEC)
    lines = str(raised.value).splitlines()
    assert [line.split(":")[0] for line in lines[:10]] == [f"{i} bytes" for i in range(1, 11)]
    assert lines[10:] == ([last] if last else [])


RESIZED = {
    "stretch": lambda image, size: image.resize(size, Image.Resampling.BILINEAR),
    "crop": lambda image, size: ImageOps.fit(image, size, Image.Resampling.BILINEAR),
    "pad": lambda image, size: ImageOps.pad(image, size, Image.Resampling.BILINEAR),
}


@pytest.mark.parametrize("rule", RESIZED)
@pytest.mark.parametrize("shape", [(12, 12, 3), (3, 20, 3), (7, 4, 1)])
def test_resize_rule_does_what_pillow_does(rule: Any, shape: tuple[int, int, int]):
    image = Image.fromarray(COLOR if shape[-1] == 3 else GREY)
    expected = np.asarray(RESIZED[rule](image, (shape[1], shape[0]))).reshape(shape)
    np.testing.assert_array_equal(read_picture(image, InputSpec(shape, resize=rule)), expected)


def test_resize_rules_stretch_crop_and_pad_as_their_names_say():
    pixels = np.zeros((4, 12), np.uint8)
    pixels[:, 4:8] = 200  # the middle third
    image = Image.fromarray(pixels)
    stretched, cropped, padded = (
        read_picture(image, InputSpec((12, 12, 1), resize=rule))[..., 0] for rule in ("stretch", "crop", "pad")
    )
    np.testing.assert_array_equal(stretched, np.repeat(pixels, 3, 0))
    assert cropped[:, 2:-2].min() >= 199  # the middle fills it (but for the filter at the borders)
    np.testing.assert_array_equal(padded, np.pad(pixels, ((4, 4), (0, 0))))


@pytest.mark.parametrize("rule", RESIZED)
def test_resize_rule_changes_nothing_when_the_size_fits(rule: Any):
    np.testing.assert_array_equal(read_picture(encoded(COLOR), InputSpec((6, 9, 3), resize=rule)), COLOR)


@pytest.mark.parametrize("field", ["mean", "std"])
def test_contract_is_refused_when_its_numbers_do_not_match_the_channels(field: str):
    with pytest.raises(InputError, match=rf"data\.{field}: got 2 numbers; expected 1 number or 3, one a channel"):
        InputSpec((4, 4, 3), **{field: (0.5, 0.5)})
    assert InputSpec((4, 4, 3), **{field: (0.5,)}) != InputSpec((4, 4, 3), **{field: (0.5, 0.5, 0.5)})


# Kinds of picture


@pytest.mark.parametrize("kind", ["gif", "webp", "tiff", "png"])
def test_first_frame_is_read_of_a_picture_with_several(kind: str):
    frames = [Image.new("RGB", (9, 6), color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if kind == "webp" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(read_picture(data, COLOR_SPEC), np.full((6, 9, 3), (200, 0, 0), np.uint8))


def test_cmyk_jpeg_becomes_rgb():
    data = encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "jpeg", quality=95)
    for size in (40, 10):  # the second is drafted
        image = decode_picture(data, "rgb", (size, size), "stretch", (0, 0, 0))
        np.testing.assert_allclose(image, np.full((size, size, 3), (255, 0, 0)), atol=3)


@pytest.mark.parametrize("color", ["grayscale", "rgb"])
def test_transparency_is_laid_over_the_background(color: Any):
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], np.uint8)
    background = (10, 220, 30)
    expected = np.array([[[200, 100, 50], background]], np.uint8)
    if color == "grayscale":
        expected = np.asarray(Image.fromarray(expected).convert("L"))[..., None]
    spec = InputSpec(expected.shape, background=background)
    np.testing.assert_array_equal(read_picture(encoded(pixels), spec), expected)
    np.testing.assert_array_equal(read_picture(encoded(pixels, "webp", lossless=True, exact=True), spec), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_transparent_color_of_a_picture_without_alpha_is_laid_over_the_background(mode: str):
    image = Image.new(mode, (2, 1), 0 if mode != "RGB" else (0, 0, 0))
    if mode == "P":
        image.putpalette([7, 7, 7, 255, 255, 255])
    image.putpixel((1, 0), {"1": 255, "P": 1, "L": 255, "RGB": (255, 255, 255)}[mode])
    data = encoded(image, transparency=(0, 0, 0) if mode == "RGB" else 0)
    shown = read_picture(data, InputSpec((1, 2, 3), background=(1, 2, 3)))
    np.testing.assert_array_equal(shown, [[[1, 2, 3], [255, 255, 255]]])


def test_background_shows_through_a_half_transparent_grey_picture():
    pixels = np.array([[[200, 128]]], np.uint8)
    data = encoded(Image.frombytes("LA", (1, 1), pixels.tobytes()))
    shown = read_picture(data, InputSpec((1, 1, 1), background=(255, 255, 255)))
    np.testing.assert_allclose(shown, 200 * 128 / 255 + 255 * 127 / 255, atol=1)


# JPEGs decoded at a part of their size


def photo(height: int, width: int) -> Image.Image:
    """A smooth picture with some texture."""
    y, x = np.mgrid[:height, :width]
    levels = np.stack([255 * x / width, 255 * y / height, 127 + 90 * np.sin(x / 9) * np.cos(y / 7)], -1)
    return Image.fromarray(levels.astype(np.uint8))


@pytest.mark.parametrize(
    "size", [(400, 300), (399, 301), (200, 150), (199, 149), (101, 76), (64, 64), (30, 90), (7, 5)]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_is_decoded_at_the_smallest_size_that_covers_what_is_wanted(size: tuple[int, int], orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(photo(300, 400), "jpeg", exif=exif)
    upright = (400, 300) if orientation == 6 else (300, 400)
    wanted = size if orientation == 6 else size[::-1]
    decoded = open_picture(data, "rgb", wanted)
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or (upright[0] // s >= wanted[0] and upright[1] // s >= wanted[1]))
    assert decoded.size == (-(-upright[1] // scale), -(-upright[0] // scale))


@pytest.mark.parametrize("rule", RESIZED)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("color", ["rgb", "grayscale"])
def test_jpeg_of_part_size_looks_like_the_whole_one_made_smaller(rule: Any, orientation: int, color: Any):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(photo(300, 400), "jpeg", quality=95, exif=exif)
    whole = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = fit_picture(whole, color, (60, 50), rule).astype(float)
    shown = decode_picture(data, color, (60, 50), rule, (0, 0, 0)).astype(float)
    assert shown.shape == (60, 50, 3 if color == "rgb" else 1)
    assert np.abs(shown - expected).mean() < 1.5


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_whole_or_damaged_is_decoded_or_refused_as_pillow_does(subsampling: int, progressive: bool):
    draw = np.random.default_rng(subsampling)
    data = encoded(photo(70, 90), "jpeg", subsampling=subsampling, progressive=progressive, quality=80)
    assert isinstance(open_levels(data, "rgb", (30, 40)), np.ndarray)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[draw.integers(2, len(data))] = draw.integers(256)
        del damaged[draw.integers(2, 2 * len(data)) :]
        for content in (data, bytes(damaged)):
            expected = shown = None
            with contextlib.suppress(Exception), JpegImageFile(io.BytesIO(content)) as image:
                image.draft("RGB", (40, 30))
                image.load()
                expected = np.asarray(image.convert("RGB"))
            with contextlib.suppress(InputError):
                shown = np.asarray(open_picture(content, "rgb", (30, 40)).convert("RGB"))
            assert (shown is None) == (expected is None)
            if expected is not None:
                np.testing.assert_array_equal(shown, expected)


def test_header_of_a_jpeg_is_understood_as_by_pillow(monkeypatch: pytest.MonkeyPatch):
    """Whole or damaged, the picture or the error is the same where Pillow reads the header."""
    turned, upright = Image.Exif(), Image.Exif()
    turned[ORIENTATION], upright[ORIENTATION] = 6, 1
    xmp = b'<rdf:Description tiff:Orientation="8"/>'
    kinds = [{}, {"progressive": True}, {"comment": b"c", "icc_profile": bytes(300)}, {"keep_rgb": True}]
    kinds += [{"exif": turned}, {"exif": upright}, {"xmp": xmp}, {"exif": upright, "xmp": xmp}]
    draw, own, num_own = np.random.default_rng(0), opening.upright_size, 0
    for number in range(500):
        data = bytearray(encoded(photo(70, 90), "jpeg", **kinds[number % len(kinds)]))
        header = data.index(b"\xff\xda") + 14
        for _ in range(number // len(kinds) % 4):
            place, change = draw.integers(2, header), draw.integers(3)
            data[place : place + (change == 1)] = draw.integers(0, 256, change, np.uint8).tobytes()
        num_own += own(bytes(data)) is not None
        shown = []
        for read in (own, lambda data: None):
            monkeypatch.setattr(opening, "upright_size", read)
            try:
                shown.append(np.asarray(open_picture(bytes(data), "rgb", (30, 40)).convert("RGB")))
            except InputError as error:
                shown.append(str(error))
        np.testing.assert_array_equal(shown[0], shown[1])
    assert num_own > 100


def test_jpeg_with_gigabytes_behind_it_is_read_without_them(tmp_path: Path):
    data, file = encoded(photo(70, 90), "jpeg"), tmp_path / "long.jpg"
    file.write_bytes(data)
    os.truncate(file, 2**34)  # a hole, which takes no room on the disk
    tracemalloc.start()
    shown = decode_picture(file, "rgb", (30, 40), "stretch", (0, 0, 0))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(shown, decode_picture(data, "rgb", (30, 40), "stretch", (0, 0, 0)))
    assert most < 2**24


def test_training_and_prediction_decode_a_picture_alike(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(encoded(photo(300, 400), "jpeg"))
    spec = InputSpec((50, 60, 1), resize="crop", background=(9, 9, 9))
    trained = decode_picture(str(tmp_path / "a.jpg"), "grayscale", (50, 60), "crop", (9, 9, 9))
    for picture in (tmp_path / "a.jpg", (tmp_path / "a.jpg").read_bytes()):
        np.testing.assert_array_equal(read_picture(picture, spec), trained)


def test_pil_image_of_the_caller_keeps_its_size():
    with Image.open(io.BytesIO(encoded(photo(300, 400), "jpeg"))) as image:
        read_picture(image, InputSpec((20, 20, 3), resize="stretch"))
        assert image.size == (400, 300)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"junk"]
)
def test_picture_with_damaged_exif_is_read_as_it_lies(exif: bytes):
    image = read_picture(encoded(GREY, exif=exif), GREY_SPEC)
    np.testing.assert_array_equal(image[..., 0], GREY)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "form"), [(1, "Bxxx"), (2, "Bxxx"), (3, "Hxx"), (4, "I"), (5, "I"), (7, "Bxxx")])
def test_orientation_of_any_type_is_understood_as_by_pillow(order: str, kind: int, form: str):
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    xmp = {"xmp": b'<rdf:Description tiff:Orientation="8"/>'}
    for count, value, prefixes, more in itertools.product((0, 1, 2), (0, 1, 6, 9), (1, 2), ({}, xmp)):
        directory = struct.pack(order + "HHHI" + form + "I", 1, ORIENTATION, kind, count, value, 0)
        data = encoded(photo(30, 40), "jpeg", exif=prefixes * b"Exif\0\0" + start + directory, **more)
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as stored:
            warnings.simplefilter("ignore")
            expected = ImageOps.exif_transpose(stored).convert("RGB")
        np.testing.assert_array_equal(np.asarray(open_picture(data)), np.asarray(expected))
        assert open_picture(data, "rgb").size == expected.size


@pytest.mark.parametrize("subsampling", [0, 2])
def test_tiny_jpeg_is_drafted_as_by_pillow(subsampling: int):
    draw = np.random.default_rng(0)
    for height in range(1, 12):
        for width in range(1, 12):
            picture = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
            data = encoded(picture, "jpeg", subsampling=subsampling)
            halves, quarters = (-(-height // 2), -(-width // 2)), (height // 4 + 1, width // 4 + 1)
            for wanted in ((1, 1), (height, width), halves, quarters):
                with JpegImageFile(io.BytesIO(data)) as image:
                    image.draft("RGB", wanted[::-1])
                    image.load()
                    np.testing.assert_array_equal(np.asarray(open_picture(data, "rgb", wanted)), np.asarray(image))


def test_orientation_is_taken_from_xmp_when_exif_has_none():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(photo(30, 40), "jpeg", xmp=xmp)
    assert open_picture(data).size == (30, 40)
    assert picture_height_width(data) == (40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "webp", "tiff", "png"])
def test_every_kind_is_turned_upright_as_pillow_does_it(kind: str, orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if kind == "webp" else {}
    data = encoded(photo(30, 40), kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    shown = open_picture(data)
    np.testing.assert_array_equal(np.asarray(shown), expected)
    np.testing.assert_array_equal(np.asarray(open_picture(shown)), expected)  # and not turned again


@pytest.mark.parametrize("name", ["a.jpg", "A.JPEG", "é ü.Png", "a.b.webp", "scan.TIF", "sign.ppm"])
def test_name_with_the_ending_of_a_picture_is_one(name: str):
    assert is_picture_name(name)


@pytest.mark.parametrize("name", ["a.txt", "jpg", ".jpg", "._a.jpg", "a.jpg.txt", "Thumbs.db", ""])
def test_other_name_is_no_picture(name: str):
    assert not is_picture_name(name)
