"""What libraries of torch call arrays: each of theirs is of one of ours, and turns into its shape."""

import numpy as np
import pytest
from flax import nnx

from benchmarks.parity_torch import VARIANTS, make_spec
from engine.importers.matching import Target, find_targets
from engine.importers.positions import resize_positions
from engine.importers.torch_names import is_counter, make_name_map, turn
from engine.models import Conv, Dense, Flatten, GlobalAveragePool, Sequential
from engine.models.families import efficientnet_lite, vit
from engine.networks.network import abstract_module, layers_in
from tests.importers.test_torch_parity import STORED, read_shapes
from tests.importers.torch_cases import NAMED, PACKAGED, POSITIONS, draw_positions


def targets_of(spec: Sequential, size: int) -> list[Target]:
    """The arrays of a network for images of a size, by their shapes."""
    shape, num_outputs = (size, size, 3), spec.output_shape((size, size, 3))[-1]
    arrays = nnx.to_flat_state(nnx.state(abstract_module(spec, shape, num_outputs), (nnx.Param, nnx.BatchStat)))
    flat = {(0, *path): leaf for path, leaf in arrays}
    return list(find_targets(layers_in(spec, shape, num_outputs), {n.name: n.layer for n in spec.named}, flat))


@pytest.mark.parametrize("name", [*NAMED, PACKAGED])
def test_each_array_of_a_library_fills_one_of_ours(name: str):
    spec = efficientnet_lite(num_classes=1000) if name == PACKAGED else make_spec(VARIANTS[name])
    given = {key: shape for key, shape in read_shapes(name).items() if not is_counter(key)}
    find_origin = make_name_map(spec)
    used = []
    for target in targets_of(spec, 224):
        names, turned = find_origin(target)
        found = [name for name in names if name in given]
        assert len(found) == 1, (target.name, target.array, names)
        assert turned(np.broadcast_to(np.float32(0), given[found[0]])).shape == target.shape
        used += found
    assert sorted(used) == sorted(given)


def test_a_kernel_and_a_matrix_get_our_axes():
    kernel = np.arange(2 * 3 * 5 * 7.0).reshape(2, 3, 5, 7)
    np.testing.assert_array_equal(turn(kernel, (5, 7, 3, 2))[4, 6, 2, 1], kernel[1, 2, 4, 6])
    np.testing.assert_array_equal(turn(kernel[:, 0], (3, 2)), kernel[:, 0])  # three axes: nothing that torch has
    matrix = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(turn(matrix, (3, 2)), matrix.T)
    np.testing.assert_array_equal(turn(matrix, (1, 1, 3, 2))[0, 0], matrix.T)


@pytest.mark.parametrize("is_convolution", [False, True])
def test_a_matrix_of_flattened_images_is_put_into_our_order(is_convolution: bool):
    """torch flattens channel after channel; timm's VGG convolves with a kernel as wide as the image."""
    spec = Sequential((Conv(4, 1, name="conv"), Flatten(), Dense(5, name="fc"), Dense(2, name="out")))
    find_origin = make_name_map(spec)
    kernel = next(t for t in targets_of(spec, 3) if (t.name, t.array) == ("fc", "kernel"))
    image = np.random.default_rng(0).normal(size=(3, 3, 4))
    weight = np.random.default_rng(1).normal(size=(5, 4, 3, 3))  # [o c y x]
    expected = np.einsum("ocyx,yxc->o", weight, image)
    ours = find_origin(kernel).turned(weight if is_convolution else weight.reshape(5, -1))
    np.testing.assert_allclose(image.reshape(-1) @ ours, expected)


def test_a_matrix_after_a_pool_is_only_transposed():
    spec = Sequential((Conv(4, 1), GlobalAveragePool(), Dense(8, name="fc"), Dense(2, name="out")))
    kernel = next(t for t in targets_of(spec, 3) if (t.name, t.array) == ("fc", "kernel"))
    weight = np.random.default_rng(1).normal(size=(8, 4))
    np.testing.assert_array_equal(make_name_map(spec)(kernel).turned(weight), weight.T)


@pytest.mark.parametrize("side", POSITIONS)
def test_positions_are_resized_as_timm_does(side: int):
    with np.load(STORED) as stored:
        expected = stored[f"positions/{side}"]
    spec = vit(3, 1, 1, num_classes=2)
    target = next(t for t in targets_of(spec, 16 * side) if t.name == "pos_embed")
    got = make_name_map(spec)(target).turned(draw_positions())
    assert got.shape == target.shape
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 198, 3), (1, 0, 3), (1, 1, 3), (197, 3), (1, 197, 4)])
def test_positions_that_are_no_square_keep_their_shape_or_width_and_so_are_refused(shape: tuple[int, ...]):
    resized = resize_positions(np.zeros(shape, np.float32), 122)
    assert resized.shape in (shape, (1, 122, 4))
