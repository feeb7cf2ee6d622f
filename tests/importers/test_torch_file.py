"""State dicts of torch: read bit by bit, and never run."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from engine import InputError
from engine.importers.read import read_weights
from engine.importers.torch_pickle import read_pickle
from engine.importers.torch_values import Damaged
from tests.importers.files import (
    MAGIC,
    Part,
    number,
    numbers,
    parts_of,
    pickled,
    tensor,
    text,
    torch_of,
    torch_old,
    torch_zip,
    written,
)

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.num_batches_tracked": np.array(7),
    "fc.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
}


@pytest.mark.parametrize("is_old", [False, True])
def test_tensors_are_read_by_name(tmp_path, is_old):
    found = read_weights(written(tmp_path / "a.pth", torch_of(ARRAYS, is_old)))
    assert found.format == "torch"
    assert list(found.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array)


@pytest.mark.parametrize("is_old", [False, True])
def test_files_that_torch_writes_are_read(tmp_path, is_old):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    shared = torch.arange(12.0)
    tensors = {
        "transposed": torch.randn(3, 4).t(), "part": shared[2:8].view(2, 3), "whole": shared, "none": torch.zeros(0, 3),
        "one": torch.tensor(3), "half": torch.randn(5).half(), "brain": torch.randn(5).bfloat16(),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }  # fmt: skip
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "a.pth", _use_new_zipfile_serialization=not is_old)
    found = read_weights(tmp_path / "a.pth")
    for name, one in tensors.items():
        np.testing.assert_array_equal(found.arrays[name], one.detach().float().numpy())
    assert "'state_dict' of a training checkpoint" in found.notes[0]


def test_views_share_a_storage_and_may_be_strided(tmp_path):
    content = np.arange(12, dtype=np.float32)
    parts = {"a": Part("0", "<f4", 12, 2, (2, 3), (1, 2)), "b": Part("0", "<f4", 12, 0, (12,), (1,))}
    found = read_weights(written(tmp_path / "a.pth", torch_zip(parts, {"0": content.tobytes()})))
    np.testing.assert_array_equal(found.arrays["a"], [[2, 4, 6], [3, 5, 7]])
    np.testing.assert_array_equal(found.arrays["b"], content)


@pytest.mark.parametrize("dtype", ["<f2", "<f8", "<u2"])
def test_other_floats_become_float32_which_is_noted(tmp_path, dtype):
    values = np.array([0.5, -3.0, 2.0**-14], np.float32)
    stored = (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "<u2" else values.astype(dtype)
    found = read_weights(written(tmp_path / "a.pth", torch_of({"w": stored})))
    assert found.arrays["w"].dtype == np.float32
    np.testing.assert_array_equal(found.arrays["w"], values)
    assert any("read as float32" in note for note in found.notes)


def test_wrappers_before_every_name_are_left_out(tmp_path):
    wrapped = {f"module.{name}": array for name, array in ARRAYS.items()}
    found = read_weights(written(tmp_path / "a.pth", torch_of(wrapped)))
    assert list(found.arrays) == list(ARRAYS)
    assert "'module.'" in found.notes[0]


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("where", ["zip", "old"])
def test_code_is_named_and_never_run(tmp_path, where, capsys):
    call = b"cos\nsystem\n(" + text("touch /tmp/x") + b"tR"
    content = torch_zip({"w": call}, {}) if where == "zip" else torch_old({"w": call}, {})
    with pytest.raises(InputError, match=r"a pickle that calls os\.system; expected a state dict"):
        read_weights(written(tmp_path / "a.pth", content))


def test_a_pickle_of_another_program_is_no_state_dict(tmp_path, capsys):
    with pytest.raises(InputError, match=r"a pickle that torch\.save did not write, which could run code"):
        read_weights(written(tmp_path / "a.pkl", pickle.dumps(Evil())))
    whole = torch_zip({"w": b"ctorchvision.models.resnet\nResNet\n)\x81"}, {})
    with pytest.raises(InputError, match=r"torchvision\.models\.resnet\.ResNet.*save model\.state_dict"):
        read_weights(written(tmp_path / "a.pth", whole))
    assert not capsys.readouterr().out


F4 = "<f4"
LIES = {
    "beyond its storage": Part("0", F4, 6, 1, (2, 3), (3, 1)),
    "strides beyond": Part("0", F4, 6, 0, (2, 3), (10, 1)),
    "repeated": Part("0", F4, 6, 0, (10**7,), (0,)),
    "more than is stored": Part("0", F4, 600, 0, (600,), (1,)),
    "negative": Part("0", F4, 6, -1, (2, 3), (3, 1)),
    "axes and strides": Part("0", F4, 6, 0, (2, 3), (1,)),
    "negative size": Part("0", F4, 6, 0, (-2, -3), (3, 1)),
    "huge": Part("0", F4, 2**61, 0, (2**31, 2**30), (2**30, 1)),
    "many axes": Part("0", F4, 6, 0, (1,) * 20, (1,) * 20),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("is_old", [False, True])
def test_shapes_that_lie_are_refused(tmp_path, lie, is_old):
    content = np.ones(6, np.float32).tobytes()
    made = torch_old({"w": LIES[lie]}, {"0": (6, content)}) if is_old else torch_zip({"w": LIES[lie]}, {"0": content})
    with pytest.raises(InputError, match="expected"):
        read_weights(written(tmp_path / "a.pth", made))


BOMBS = {
    "memo": b"\x80\x02]r\xff\xff\xff\x7f.",
    "number": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "bytes": b"\x80\x03\x8e" + b"\xff" * 8,
    "text": b"\x80\x02X\xff\xff\xff\xff",
    "empty stack": b"\x80\x020R.",
    "extension": b"\x80\x02\x82\x01.",
    "digits": b"\x80\x02L" + b"9" * 100_000 + b"L\n.",
    "deep": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "copies": b"\x80\x02](" + b"K\x01" * 2000 + b"eq\x00" + b"ctorch\nSize\nh\x00\x85R0" * 60_000 + b".",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickles_that_would_take_all_memory_or_time_are_refused(tmp_path, bomb):
    content = MAGIC + BOMBS[bomb]
    with pytest.raises(InputError, match="expected a state dict"):
        read_weights(written(tmp_path / "a.pth", content))


def test_a_dict_that_holds_itself_is_no_endless_walk(tmp_path):
    within = b"\x80\x02}q\x00" + text("model") + b"h\x00s."
    with pytest.raises(InputError, match="tensors by name"):
        read_weights(written(tmp_path / "a.pth", MAGIC + within + b"\x80\x02]."))


def test_what_is_not_finite_is_named(tmp_path):
    arrays = {"good": np.ones(2, np.float32), "bad": np.array([1, np.nan], np.float32)}
    with pytest.raises(InputError, match="NaN or infinity in bad;"):
        read_weights(written(tmp_path / "a.pth", torch_of(arrays)))
    with pytest.raises(InputError, match="NaN or infinity in large;"):
        read_weights(written(tmp_path / "a.pth", torch_of({"large": np.array([1e300])})))


def test_bits_flipped_in_an_array_of_a_zip_are_found(tmp_path):
    content = bytearray(torch_of(ARRAYS))
    content[content.index(ARRAYS["conv.weight"].tobytes()) + 20] ^= 1
    with pytest.raises(InputError, match="CRC"):
        read_weights(written(tmp_path / "a.pth", bytes(content)))


def test_compressed_parts_and_numbers_of_no_tensor_are_answered(tmp_path):
    made = torch_zip(parts_of({"w": np.zeros(10**6, np.float32)}), {"0": bytes(4 * 10**6)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        read_weights(written(tmp_path / "a.pth", made))
    parts = {"w": Part("0", F4, 2, 0, (2,), (1,))}
    held = {"0": (2, bytes(8)), "1": (2, bytes(8))}
    with pytest.raises(InputError, match="a list of storages that its tensors do not have"):
        read_weights(written(tmp_path / "a.pth", torch_old(parts, held)))


def test_training_checkpoints_hold_their_weights_in_a_dict(tmp_path):
    inner = pickled(parts_of({"w": np.ones(2, np.float32)})).removeprefix(b"\x80\x02").removesuffix(b".")
    arguments = b"cargparse\nNamespace\n)\x81}" + text("lr") + b"K\x01sb"
    found = read_weights(
        written(tmp_path / "a.pth", torch_zip({"model": inner, "args": arguments}, {"0": np.ones(2, F4).tobytes()}))
    )
    assert list(found.arrays) == ["w"]
    assert "'model' of a training checkpoint (not 'args')" in found.notes[0]


@pytest.mark.parametrize("is_old", [False, True])
def test_what_an_optimizer_kept_is_passed_over(tmp_path, is_old):
    others = b"}" + text("step") + tensor(Part("0", F4, 3, 0, (3,), (1,))) + b"s"
    inner = b"}" + text("w") + tensor(Part("1", F4, 2, 0, (2,), (1,))) + b"s"
    held = {"0": np.zeros(3, F4).tobytes(), "1": np.ones(2, F4).tobytes()}
    parts = {"optimizer": others, "model": inner}
    old = {"0": (3, held["0"]), "1": (2, held["1"])}
    found = read_weights(written(tmp_path / "a.pth", torch_old(parts, old) if is_old else torch_zip(parts, held)))
    assert list(found.arrays) == ["w"]
    np.testing.assert_array_equal(found.arrays["w"], [1, 1])


def test_a_list_of_tensors_has_no_names(tmp_path):
    part = tensor(Part("0", F4, 2, 0, (2,), (1,)))
    content = MAGIC + b"\x80\x02](" + part + b"e." + b"\x80\x02]" + text("0") + b"a." + struct.pack("<q", 2) + bytes(8)
    with pytest.raises(InputError, match="a pickle of a list; expected a state dict"):
        read_weights(written(tmp_path / "a.pth", content))
    assert number(1) + numbers([]) == b"\x8a\x08\x01\0\0\0\0\0\0\0(t"


def test_name_that_would_be_written_out_to_terabytes_is_refused_at_once(tmp_path):
    pairs = b"2\x86" * 60  # each pair holds the one before twice
    pickle_ = b"\x80\x02X\x01\0\0\0a" + pairs + b"X\x01\0\0\0b\x93."
    with pytest.raises(Damaged, match="a name that is no text"):
        read_pickle(io.BytesIO(pickle_), tmp_path)
