"""Pictures of every kind become the array of the input contract, or are refused with a reason."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from engine.data.images import InputSpec, fit_picture, open_picture, picture_files, read_picture, read_pictures
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


@pytest.mark.parametrize("data", [b"", b"not a picture"], ids=["zero bytes", "text"])
def test_bytes_are_refused_when_they_are_no_image(data: bytes):
    with pytest.raises(InputError, match=rf"{len(data)} bytes: got a file that is not an image"):
        open_picture(data)


def test_empty_file_is_refused_as_no_image(tmp_path: Path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"a\.png: got a file that is not an image"):
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
    with pytest.raises(InputError, match=r"nowhere\.png: got .*No such file"):
        open_picture(tmp_path / "nowhere.png")


def test_folder_is_refused_as_a_picture(tmp_path: Path):
    with pytest.raises(InputError, match="directory"):
        open_picture(tmp_path)


def test_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # 54 pixels are more than twice this
    with pytest.raises(InputError, match=r"exceeds limit of 40 pixels.*; expected a readable, complete image"):
        open_picture(encoded(GREY))


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
    with pytest.raises(InputError, match=rf"image array: got {dtype}; expected uint8\. Pass pixels from 0 to 255"):
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
    "stretch": lambda image, size: image.resize(size, Image.Resampling.BICUBIC),
    "crop": lambda image, size: ImageOps.fit(image, size, Image.Resampling.BICUBIC),
    "pad": lambda image, size: ImageOps.pad(image, size, Image.Resampling.BICUBIC),
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


def test_files_of_a_folder_are_its_images_in_order_of_their_names(tmp_path: Path):
    names = ["b.png", "a.JPG", "sub/c.webp", "notes.txt", "sub/deeper/a.tiff"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in picture_files([tmp_path])]
    assert found == ["a.JPG", "b.png", "sub/c.webp", "sub/deeper/a.tiff"]


def test_files_named_are_kept_in_the_order_given(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in.png").touch()
    files = picture_files(["z.bin", str(tmp_path / "folder"), Path("a.png")])
    assert files == [Path("z.bin"), tmp_path / "folder" / "in.png", Path("a.png")]


def test_folder_without_images_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"got an empty folder; expected image files below it \(.*\.png.*\)"):
        picture_files([tmp_path])


@pytest.mark.parametrize("field", ["mean", "std"])
def test_contract_is_refused_when_its_numbers_do_not_match_the_channels(field: str):
    with pytest.raises(InputError, match=rf"data\.{field}: got 2 numbers; expected 1 number or 3, one a channel"):
        InputSpec((4, 4, 3), **{field: (0.5, 0.5)})
    assert InputSpec((4, 4, 3), **{field: (0.5,)}) != InputSpec((4, 4, 3), **{field: (0.5, 0.5, 0.5)})
