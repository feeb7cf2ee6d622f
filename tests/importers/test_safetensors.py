"""safetensors: every offset is compared with the file before anything is read."""

import json

import numpy as np
import pytest

from engine import InputError
from engine.importers.read import read_weights
from tests.importers.files import safetensors, written

VALUES = np.arange(6, dtype=np.float32)


def entry(begin: int, end: int, shape: object = None, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def test_arrays_metadata_and_the_config_beside_are_read(tmp_path):
    header = {"__metadata__": {"format": "pt"}, "b": entry(16, 24), "a": entry(0, 16, [2, 2])}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}))
    found = read_weights(written(tmp_path / "model.safetensors", safetensors(header, VALUES.tobytes())))
    np.testing.assert_array_equal(found.arrays["a"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(found.arrays["b"], [4, 5])
    assert found.about["metadata"] == {"format": "pt"}
    assert found.about["pretrained_cfg"] == {"mean": [0.5, 0.5, 0.5]}


def test_bfloat16_and_integers(tmp_path):
    header = {"a": entry(0, 4, [2], "BF16"), "n": entry(4, 12, [], "I64")}
    content = np.array([0x3F80, 0xC000], "<u2").tobytes() + np.array(5, "<i8").tobytes()
    found = read_weights(written(tmp_path / "a.safetensors", safetensors(header, content)))
    np.testing.assert_array_equal(found.arrays["a"], np.array([1, -2], np.float32))
    assert found.arrays["n"] == 5
    assert found.notes == ("bfloat16 read as float32",)


LIES = {
    "overlap": {"a": entry(0, 16), "b": entry(12, 24)},
    "twice": {"a": entry(0, 24), "b": entry(0, 24)},
    "gap": {"a": entry(0, 8), "b": entry(12, 24)},
    "beyond": {"a": entry(0, 4000)},
    "short": {"a": entry(0, 16)},
    "backwards": {"a": entry(24, 0, [6])},
    "shape": {"a": entry(0, 24, [7])},
    "negative": {"a": entry(0, 24, [-6])},
    "huge": {"a": entry(0, 24, [2**40, 2**40])},
    "fractions": {"a": entry(0, 24, [1.5])},
    "booleans": {"a": entry(0, 24, [True])},
    "dtype": {"a": entry(0, 24, [6], "F8_E4M3")},
    "dtype no text": {"a": entry(0, 24, [6], ["F32"])},
    "nothing": {"a": None},
    "empty": {},
    "a list": [1],
    "no json": b"{" + b"x" * 20,
    "deep": b"{" + b'"a":[' * 30_000,
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie_are_refused(tmp_path, lie):
    with pytest.raises(InputError, match="expected") as caught:
        read_weights(written(tmp_path / "a.safetensors", safetensors(LIES[lie], VALUES.tobytes())))
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    content = safetensors({"a": entry(0, 24)}, VALUES.tobytes(), length=3 * 2**30)
    with pytest.raises(InputError, match="a safetensors header of 3,221,225,472 bytes"):
        read_weights(written(tmp_path / "a.safetensors", content))


def test_a_file_cut_short_is_refused(tmp_path):
    content = safetensors({"a": entry(0, 24)}, VALUES.tobytes())[:-1]
    with pytest.raises(InputError, match=r"got a, which|of 6, which .*takes 24 bytes"):
        read_weights(written(tmp_path / "a.safetensors", content))
