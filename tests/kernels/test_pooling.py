"""The lowerings of convolutions and pools against lax.

The values are small whole numbers as floats: their sums are exact, so results must be equal, not only close.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from engine.devices.precision import products_in
from engine.kernels import direct, ffi, lowerings, pooling, windows
from engine.kernels import eigen as convolution
from engine.kernels.matrix import matrix_conv_general_dilated
from tests.further import choose_examples

pytestmark = pytest.mark.gpu

SETTINGS = settings(max_examples=choose_examples(6, 15), derandomize=True, deadline=None, database=None)
NHWC = ("NHWC", "HWIO", "NHWC")
PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))
STEPS = st.tuples(st.integers(1, 3), st.integers(1, 3))

eigen, matrix = convolution.eigen_conv_general_dilated, matrix_conv_general_dilated
directly = direct.direct_conv_general_dilated
needs_compiler = pytest.mark.skipif(not ffi.is_available(), reason="needs a C++ compiler")


@pytest.fixture(scope="module", autouse=True)
def serve_few_pixels() -> Iterator[None]:
    """Lets maps be convolved directly that are so small that Eigen is faster; in float32, as runs are on a GPU too."""
    with pytest.MonkeyPatch.context() as patch, products_in("float32"):
        patch.setattr(ffi, "FEW_PIXELS", 1)
        patch.setattr(ffi, "MINIMAL_PIXELS", 1)
        patch.setattr(ffi, "LARGE_TILES", 0)  # they round whole numbers too
        yield


def whole_numbers(shape: Sequence[int], seed: int, largest: int = 4) -> jax.Array:
    """float32 of `shape` drawn from -largest … largest."""
    return jnp.asarray(np.random.default_rng(seed).integers(-largest, largest + 1, shape), jnp.float32)


def value_and_gradients(function: Callable[..., jax.Array], *arguments: jax.Array) -> list[np.ndarray]:
    """What `function` gives, then its gradient by each argument for a fixed random gradient of the output."""

    @jax.jit
    def both(*arguments: jax.Array) -> tuple:
        value, pull_back = jax.vjp(function, *arguments)
        return value, *pull_back(whole_numbers(value.shape, 99).astype(value.dtype))

    return [np.asarray(array) for array in both(*arguments)]


def assert_all_equal(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@st.composite
def convolutions(
    draw: st.DrawFn,
    channel_choices: tuple[int, ...] = (1, 3, 5),  # thin and not
    filter_choices: tuple[int, ...] = (1, 2, 3),
) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """(image shape, kernel shape, arguments) in which the window fits the padded image."""
    kernel_size, dilation = draw(PAIRS), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.one_of(st.sampled_from(("VALID", "SAME")), st.tuples(pads, pads)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    added = (0, 0) if isinstance(padding, str) else tuple(map(sum, padding))
    least = [1 if padding == "SAME" else max(1, r - a) for r, a in zip(reach, added, strict=True)]
    height, width = (low + draw(st.integers(0, 5)) for low in least)
    channels = draw(st.sampled_from(channel_choices))
    arguments = {"window_strides": draw(STEPS), "padding": padding, "rhs_dilation": dilation}
    kernel_shape = (*kernel_size, channels, draw(st.sampled_from(filter_choices)))
    return (draw(st.integers(1, 3)), height, width, channels), kernel_shape, arguments


def assert_equals_lax(ours: Callable, case: tuple, seed: int) -> None:
    """A convolution of whole numbers and its gradients are those of lax, to the bit."""
    image_shape, kernel_shape, arguments = case
    images, kernel = whole_numbers(image_shape, seed), whole_numbers(kernel_shape, seed + 1)

    def through(conv: Callable) -> list[np.ndarray]:
        return value_and_gradients(lambda x, k: conv(x, k, dimension_numbers=NHWC, **arguments), images, kernel)

    assert_all_equal(through(ours), through(lax.conv_general_dilated))


@pytest.mark.parametrize("ours", [eigen, matrix], ids=["eigen", "matrix"])
@SETTINGS
@given(case=convolutions(), seed=st.integers(0, 1000))
def test_conv_equals_lax_in_value_and_gradients(ours: Callable, case: tuple, seed: int):
    assert_equals_lax(ours, case, seed)


@needs_compiler
@settings(SETTINGS, max_examples=choose_examples(12, 60))
@given(case=convolutions((1, 3, 16, 27, 32), (16, 32, 48, 64, 80, 144)), seed=st.integers(0, 1000))
def test_direct_conv_equals_lax_in_value_and_gradients(case: tuple, seed: int):
    assert_equals_lax(directly, case, seed)


@needs_compiler
@settings(SETTINGS, max_examples=choose_examples(10, 40))
@given(case=convolutions((1, 3, 16, 32), (16, 32, 80)), data=st.data(), seed=st.integers(0, 1000))
def test_direct_conv_with_a_pool_equals_lax_in_value_and_gradients(case: tuple, data: st.DataObject, seed: int):
    image_shape, kernel_shape, arguments = case
    images, kernel = whole_numbers(image_shape, seed), whole_numbers(kernel_shape, seed + 1)

    maps = jax.eval_shape(
        lambda x, k: lax.conv_general_dilated(x, k, dimension_numbers=NHWC, **arguments), images, kernel
    )
    height, width = (data.draw(st.integers(1, min(size, 4))) for size in maps.shape[1:3])
    steps = data.draw(st.one_of(st.just((height, width)), STEPS))
    tail = direct.FusedTail(windows.Window((height, width), steps), data.draw(st.booleans()))
    assert_equals_lax_with_what_follows(images, kernel, whole_numbers(kernel_shape[3:], seed + 2), tail, arguments)


def assert_equals_lax_with_what_follows(
    images: jax.Array, kernel: jax.Array, bias: jax.Array, tail: direct.FusedTail, arguments: dict[str, Any]
) -> None:
    """Convolution, bias, relu and pool in one, and all gradients, are those of lax one after another, to the bit."""
    assert_all_equal(*through_what_follows(images, kernel, bias, tail, arguments))


def through_what_follows(
    images: jax.Array, kernel: jax.Array, bias: jax.Array, tail: direct.FusedTail, arguments: dict[str, Any]
) -> tuple[list[np.ndarray], ...]:
    """Value and gradients of convolution, bias, relu and pool, in one, and those of lax one after another."""
    arguments = {"window_strides": (1, 1), **arguments}
    pool = tail.pool or ffi.NO_POOL

    def by_lax(x: jax.Array, k: jax.Array, b: jax.Array) -> jax.Array:
        maps = lax.conv_general_dilated(x, k, dimension_numbers=NHWC, **arguments) + b.reshape(1, 1, 1, -1)
        maps = jax.nn.relu(maps) if tail.is_relu else maps
        return lax.reduce_window(maps, -jnp.inf, lax.max, (1, *pool.size, 1), (1, *pool.strides, 1), "VALID")

    def at_once(x: jax.Array, k: jax.Array, b: jax.Array) -> jax.Array:
        return directly(x, k, dimension_numbers=NHWC, bias=b, tail=tail, **arguments)

    ours, theirs = (value_and_gradients(f, images, kernel, bias) for f in (at_once, by_lax))
    return ours, theirs


@needs_compiler
@settings(SETTINGS, max_examples=choose_examples(8, 20))
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(24, 60)),
    kernel_size=PAIRS,
    step=st.integers(1, 2),
    channels=st.sampled_from((1, 3)),
    filters=st.sampled_from((16, 32, 48, 64, 80)),
    pool=st.sampled_from((None, windows.Window((2, 2), (2, 2)), windows.Window((2, 2), (1, 1)))),
    is_relu=st.booleans(),
)
def test_direct_conv_of_wide_images_of_few_channels_equals_lax(
    sizes: tuple, kernel_size: tuple, step: int, channels: int, filters: int, pool: Any, is_relu: bool
):
    images, kernel = whole_numbers((*sizes, channels), 0), whole_numbers((*kernel_size, channels, filters), 1)
    arguments = {"window_strides": (step, 1), "padding": "SAME"}
    tail = direct.FusedTail(pool, is_relu)
    assert_equals_lax_with_what_follows(images, kernel, whole_numbers((filters,), 2), tail, arguments)


@needs_compiler
@pytest.mark.parametrize("is_relu", [False, True])
def test_direct_conv_adds_the_bias_and_keeps_the_positive_part(is_relu: bool):
    images, kernel, bias = whole_numbers((2, 5, 6, 3), 0), whole_numbers((3, 3, 3, 32), 1), whole_numbers((32,), 2)

    def by_lax(x: jax.Array, k: jax.Array, b: jax.Array) -> jax.Array:
        maps = lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=NHWC) + b.reshape(1, 1, 1, -1)
        return jax.nn.relu(maps) if is_relu else maps

    def at_once(x: jax.Array, k: jax.Array, b: jax.Array) -> jax.Array:
        tail = direct.FusedTail(None, is_relu)
        return directly(x, k, (1, 1), "SAME", dimension_numbers=NHWC, bias=b, tail=tail)

    assert_all_equal(*(value_and_gradients(f, images, kernel, bias) for f in (at_once, by_lax)))


@needs_compiler
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(("width", "channels"), [(4, 16), (24, 3)])
@pytest.mark.parametrize("tail", [direct.FusedTail(windows.Window((2, 2), (2, 2))), direct.FusedTail(None, True)])
def test_direct_conv_passes_nan_on_to_what_follows(kernel_size: int, width: int, channels: int, tail: direct.FusedTail):
    image, row, column = np.arange(4), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])  # each place of a window
    images = jnp.zeros((4, 4, width, channels)).at[image, row, column, 0].set(jnp.nan)
    kernel = jnp.ones((kernel_size, kernel_size, channels, 16))
    maps = directly(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC, tail=tail)
    is_nan = np.isnan(maps[:, :, :, 0])
    assert is_nan[image, row // 2, column // 2].all() if tail.pool else is_nan[image, row, column].all()
    if kernel_size == 1:
        assert is_nan.sum() == 4


@needs_compiler
def test_direct_conv_cuts_what_padding_below_zero_leaves_out():
    images, kernel = whole_numbers((3, 9, 8, 16), 0), whole_numbers((3, 2, 16, 32), 1)

    def through(conv: Callable) -> list[np.ndarray]:
        pads = ((-1, 2), (1, -2))
        return value_and_gradients(lambda x, k: conv(x, k, (1, 2), pads, dimension_numbers=NHWC), images, kernel)

    assert_all_equal(through(directly), through(lax.conv_general_dilated))


@needs_compiler
@pytest.mark.parametrize("filters", [8, 16])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_direct_conv_serves_float32_and_whole_vectors_of_filters_and_leaves_the_rest_to_eigen(filters: int, dtype: Any):
    images, kernel = jnp.ones((2, 5, 5, 16), dtype), jnp.ones((3, 3, 16, filters), dtype)

    def maps(conv: Callable) -> jax.Array:
        return conv(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC)

    program = str(jax.make_jaxpr(lambda: maps(directly))())
    assert ("ffi_call" in program) == (dtype == jnp.float32 and filters == 16)
    np.testing.assert_array_equal(maps(directly), maps(eigen))


@needs_compiler
@pytest.mark.parametrize(
    ("size", "kernel_shape", "is_served"),
    [(1, (3, 3, 16, 16), False), (2, (3, 3, 16, 16), True), (7, (3, 3, 256, 256), True), (7, (3, 3, 512, 512), False),
     (3, (3, 3, 3, 16), False), (4, (3, 3, 3, 16), True), (19, (3, 3, 130, 128), False), (20, (3, 3, 130, 128), True),
     (20, (3, 3, 260, 256), False)],
)  # fmt: skip
def test_direct_conv_serves_what_it_does_faster_than_eigen(
    size: int, kernel_shape: tuple[int, ...], is_served: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ffi, "FEW_PIXELS", 16)
    monkeypatch.setattr(ffi, "MINIMAL_PIXELS", 4)
    window = windows.Window((3, 3), (1, 1), pads=((1, 1), (1, 1)))
    images = jnp.ones((2, size, size, kernel_shape[2]))
    assert ffi.supports(images, jax.ShapeDtypeStruct(kernel_shape, jnp.float32), window) == is_served


@needs_compiler
@settings(SETTINGS, max_examples=choose_examples(10, 30))
@given(
    case=st.tuples(*(st.integers(low, high) for low, high in ((1, 40), (3, 17), (3, 17)))),
    channels=st.sampled_from((16, 32, 64)),
    filters=st.sampled_from((16, 32, 48, 64, 80)),
    padding=st.sampled_from(("SAME", "VALID", ((2, 1), (0, 2)))),
    pool=st.sampled_from(
        (None, *(windows.Window((n, n), (step, step)) for n, step in ((1, 1), (1, 2), (2, 2), (2, 1))))
    ),
)
def test_minimal_conv_equals_lax_in_value_and_gradients_over_groups_of_images(
    case: tuple, channels: int, filters: int, padding: Any, pool: windows.Window | None
):
    images, kernel = whole_numbers((*case, channels), 0), whole_numbers((3, 3, channels, filters), 1)
    bias = whole_numbers((filters,), 2)
    arguments = {"window_strides": (1, 1), "padding": padding}
    assert_equals_lax_with_what_follows(images, kernel, bias, direct.FusedTail(pool, True), arguments)


@needs_compiler
@pytest.mark.parametrize(("channels", "filters"), [(16, 16), (64, 128)])
@pytest.mark.parametrize(("large_tiles", "most"), [(0, 2), (1, 4)])
def test_minimal_conv_rounds_not_much_more_than_lax_does(
    channels: int, filters: int, large_tiles: float, most: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ffi, "LARGE_TILES", large_tiles)
    draw = np.random.default_rng(0)
    images, kernel = draw.normal(size=(4, 12, 11, channels)), draw.normal(size=(3, 3, channels, filters))

    def through(conv: Callable, dtype: Any) -> list[np.ndarray]:
        maps = lambda x, k: conv(x, k, (1, 1), "SAME", dimension_numbers=NHWC)  # noqa: E731
        return value_and_gradients(maps, jnp.asarray(images, dtype), jnp.asarray(kernel, dtype))

    with jax.enable_x64(True):
        exact = through(lax.conv_general_dilated, jnp.float64)
    ours, theirs = through(directly, jnp.float32), through(lax.conv_general_dilated, jnp.float32)
    for own, other, true in zip(ours, theirs, exact, strict=True):
        assert np.sqrt(np.mean((own - true) ** 2)) < most * np.sqrt(np.mean((other - true) ** 2))


@needs_compiler
@settings(SETTINGS, max_examples=choose_examples(8, 40))
@given(
    case=st.tuples(*(st.integers(low, high) for low, high in ((1, 30), (3, 17), (3, 17)))),
    channels=st.sampled_from((16, 32, 64)),
    filters=st.sampled_from((16, 32, 48, 64, 80)),
    padding=st.sampled_from(("SAME", "VALID", ((2, 1), (0, 2)))),
    pool=st.sampled_from((None, *(windows.Window((n, n), (step, step)) for n, step in ((1, 2), (2, 2), (2, 1))))),
)
def test_minimal_conv_in_large_tiles_is_near_lax_in_value_and_gradients(
    case: tuple, channels: int, filters: int, padding: Any, pool: windows.Window | None
):
    draw = np.random.default_rng(sum(case))
    shapes = (*case, channels), (3, 3, channels, filters), (filters,)
    arrays = [jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in shapes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ffi, "LARGE_TILES", 2)
        got, expected = through_what_follows(*arrays, direct.FusedTail(pool), {"padding": padding})
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.sqrt(np.mean(theirs**2)))


@needs_compiler
@pytest.mark.parametrize("pool", [None, windows.Window((2, 2), (2, 2))])
def test_gradient_of_the_bias_is_summed_without_loss_over_many_images(pool: windows.Window | None):
    images, kernel = jnp.ones((64, 64, 64, 3)), jnp.zeros((3, 3, 3, 16))

    def maps(bias: jax.Array) -> jax.Array:
        tail = direct.FusedTail(pool)
        return directly(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC, bias=bias, tail=tail)

    outputs, pull_back = jax.vjp(maps, jnp.zeros(16))
    (gradient,) = pull_back(jnp.full_like(outputs, 0.1))
    np.testing.assert_allclose(gradient, float(np.float32(0.1)) * outputs[..., 0].size, rtol=1e-5)


@needs_compiler
def test_kernel_of_another_dtype_is_not_served():
    images, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 16), jnp.bfloat16)
    with pytest.raises(TypeError, match="same dtypes"):
        directly(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
    sizes = {"strides": (1, 1), "kernel_dilation": (1, 1)}
    conv = nnx.Conv(3, 16, (3, 3), **sizes, rngs=nnx.Rngs(0), conv_general_dilated=directly)
    assert lowerings.runs_directly(conv, images)
    conv.kernel = nnx.Param(kernel)
    assert not lowerings.runs_directly(conv, images)


@needs_compiler
def test_kernel_without_filters_is_not_served():
    images, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 0))
    gradient = jax.grad(lambda x: directly(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC).sum())(images)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(images))


@needs_compiler
def test_gradient_of_images_that_nobody_asks_for_is_not_computed():
    images, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))

    def loss(x: jax.Array, k: jax.Array) -> jax.Array:
        return directly(x, k, (1, 1), "SAME", dimension_numbers=NHWC).sum()

    programs = [str(jax.make_jaxpr(jax.grad(loss, asked))(images, kernel)) for asked in (0, 1)]
    assert [program.count("rev[") for program in programs] == [1, 0]  # of the kernel, which is flipped for it
    both = jax.grad(loss, (0, 1))(images, kernel)
    for asked in (0, 1):
        np.testing.assert_array_equal(jax.grad(loss, asked)(images, kernel), both[asked])


@needs_compiler
@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("num_images", [1, 2, 7, 8, 9, 30])
def test_direct_conv_gives_the_same_bits_however_few_images_share_the_threads(
    num_images: int, channels: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ffi, "LARGE_TILES", num_images % 2)
    images = jax.random.normal(jax.random.key(0), (num_images, 13, 11, channels))
    kernel, bias = jax.random.normal(jax.random.key(1), (3, 3, channels, 32)), jnp.ones(32)
    for pool in (None, windows.Window((3, 2), (2, 2)), windows.Window((2, 2), (1, 1)), windows.Window((2, 2), (2, 2))):
        tail = direct.FusedTail(pool, True)

        def maps(x: jax.Array, tail: direct.FusedTail = tail) -> jax.Array:
            return directly(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC, bias=bias, tail=tail)

        one_by_one = jnp.concatenate([maps(images[n : n + 1]) for n in range(num_images)])
        np.testing.assert_array_equal(maps(images), one_by_one)
    if num_images == 7:
        to_images = jax.grad(lambda x: (maps(x) ** 2).sum())
        one_by_one = jnp.concatenate([to_images(images[n : n + 1]) for n in range(num_images)])
        # That of 3 channels is XLA's, whose vectors may hold the last pixel with others where images are several.
        within = 0 if channels == 16 else 1e-6 * abs(one_by_one).max()
        np.testing.assert_allclose(to_images(images), one_by_one, rtol=0, atol=within)


@needs_compiler
def test_direct_conv_of_no_images_gives_none_and_a_kernel_gradient_of_zeros():
    images, kernel = jnp.ones((0, 5, 5, 16)), jnp.ones((3, 3, 16, 16))
    maps, pull_back = jax.vjp(lambda x, k: directly(x, k, (1, 1), "SAME", dimension_numbers=NHWC), images, kernel)
    assert maps.shape == (0, 5, 5, 16)
    np.testing.assert_array_equal(pull_back(maps)[1], jnp.zeros_like(kernel))


@needs_compiler
@pytest.mark.parametrize("size", [1, 3])
def test_direct_conv_passes_infinity_on_to_what_sees_it_and_to_nothing_far_from_it(size: int):
    images = jnp.zeros((1, 12, 12, 16)).at[0, 5, 6, 3].set(jnp.inf)
    maps = directly(images, jnp.ones((size, size, 16, 16)), (1, 1), "SAME", dimension_numbers=NHWC)
    is_finite, reach = np.isfinite(maps).all((0, 3)), size // 2
    assert not is_finite[5 - reach : 6 + reach, 6 - reach : 7 + reach].any()
    near = slice(5 - 2 * reach, 6 + 2 * reach), slice(6 - 2 * reach, 7 + 2 * reach)  # in tiles of two by two
    is_finite[near] = True
    assert is_finite.all()


@needs_compiler
def test_direct_conv_maps_over_members():
    images, kernels = whole_numbers((2, 3, 6, 6, 3), 0), whole_numbers((2, 3, 3, 3, 16), 1)

    def through(conv: Callable) -> list[np.ndarray]:
        of_one = lambda x, k: conv(x, k, (1, 1), "SAME", dimension_numbers=NHWC)  # noqa: E731
        return value_and_gradients(jax.vmap(of_one), images, kernels)

    assert_all_equal(through(directly), through(lax.conv_general_dilated))


def test_conv_is_within_rounding_of_lax_when_values_are_fractions():
    images, kernel = (
        jax.random.normal(jax.random.key(0), (2, 9, 8, 5)),
        jax.random.normal(jax.random.key(1), (3, 2, 5, 4)),
    )

    def through(conv: Callable) -> list[np.ndarray]:
        return value_and_gradients(lambda x, k: conv(x, k, (1, 2), "SAME", dimension_numbers=NHWC), images, kernel)

    for ours, theirs in zip(through(eigen), through(lax.conv_general_dilated), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


@SETTINGS
@given(convolutions(), st.integers(0, 1000))
def test_depthwise_conv_equals_lax_in_value_and_gradients(case: tuple, seed: int):
    image_shape, kernel_shape, arguments = case
    channels = image_shape[3]
    images, kernel = whole_numbers(image_shape, seed), whole_numbers((*kernel_shape[:2], 1, channels), seed + 1)
    arguments = arguments | {"dimension_numbers": NHWC, "feature_group_count": channels}

    def through(conv: Callable) -> list[np.ndarray]:
        return value_and_gradients(lambda x, k: conv(x, k, **arguments), images, kernel)

    assert_all_equal(through(eigen), through(lax.conv_general_dilated))


@pytest.mark.parametrize("groups", [1, 6])
def test_conv_stalls_in_loops_only_where_lax_differentiates_it(groups: int):
    images, kernel = jnp.ones((2, 9, 8, 6)), jnp.ones((3, 3, 6 // groups, 6))

    def program(conv: Callable) -> str:
        def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
            return conv(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups).sum()

        return str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(images, kernel))

    assert not convolution.stalls_in_loops(program(eigen))
    assert convolution.stalls_in_loops(program(lax.conv_general_dilated))


def test_conv_refuses_a_kernel_larger_than_the_padded_image():
    with pytest.raises(ValueError, match="larger than the padded image"):
        eigen(jnp.ones((1, 3, 3, 5)), jnp.ones((4, 3, 5, 2)), (1, 1), "VALID", dimension_numbers=NHWC)


def test_matrix_lowering_uses_no_slow_operation_of_the_backend():
    def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
        maps = eigen(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        return pooling.max_pool(maps, (2, 2), (2, 2), ((0, 0), (0, 0)), "matrix").sum()

    program = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 4))))
    assert not convolution.stalls_in_loops(program)
    assert not [name for name in ("select_and", "reduce_window") if name in program]


@pytest.mark.parametrize(
    ("image_shape", "kernel_shape", "arguments"),
    [
        pytest.param((2, 5, 6, 4), (3, 3, 2, 6), {"feature_group_count": 2}, id="two groups"),
        pytest.param((2, 5, 6, 4), (3, 3, 1, 8), {"feature_group_count": 4}, id="two filters a channel"),
        pytest.param((4, 5, 6, 3), (3, 3, 3, 4), {"batch_group_count": 2}, id="batch groups"),
        pytest.param(
            (2, 4, 5, 3), (3, 3, 3, 4), {"lhs_dilation": (2, 1), "padding": ((1, 1), (1, 1))}, id="transposed"
        ),
        pytest.param((2, 3, 5, 6), (4, 3, 3, 3), {"dimension_numbers": ("NCHW", "OIHW", "NCHW")}, id="NCHW"),
        pytest.param((2, 3, 5, 6), (4, 3, 3, 3), {"dimension_numbers": None}, id="lax's own order"),
        pytest.param((2, 5, 6, 3), (4, 3, 3, 3), {"dimension_numbers": ("NHWC", "OIHW", "NHWC")}, id="OIHW kernel"),
        pytest.param(
            (2, 7, 3), (3, 3, 4), {"dimension_numbers": ("NWC", "WIO", "NWC"), "window_strides": (2,)}, id="1-D"
        ),
        pytest.param((2, 5, 6, 3), (3, 3, 3, 4), {"preferred_element_type": jnp.float32}, id="element type asked for"),
    ],
)
def test_conv_falls_back_to_lax_when_the_matrix_form_does_not_serve(
    image_shape: tuple, kernel_shape: tuple, arguments: dict[str, Any]
):
    arguments = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC} | arguments
    images, kernel = whole_numbers(image_shape, 0), whole_numbers(kernel_shape, 1)
    program = str(jax.make_jaxpr(lambda x, k: eigen(x, k, **arguments))(images, kernel))
    assert "conv_general_dilated[" in program
    got, expected = (conv(images, kernel, **arguments) for conv in (eigen, lax.conv_general_dilated))
    np.testing.assert_array_equal(got, expected)


def test_conv_under_vmap_equals_a_loop_over_members():
    images, kernels = whole_numbers((3, 2, 6, 5, 2), 0), whole_numbers((3, 3, 2, 2, 4), 1)

    def gradients(images: jax.Array, kernel: jax.Array) -> tuple:
        value, pull_back = jax.vjp(
            lambda x, k: eigen(x, k, (2, 1), "SAME", dimension_numbers=NHWC),
            images,
            kernel,
        )
        return value, *pull_back(value)

    together = jax.jit(jax.vmap(gradients))(images, kernels)
    one = jax.jit(gradients)
    one_by_one = [one(images[m], kernels[m]) for m in range(3)]
    for own, members in zip(together, zip(*one_by_one, strict=True), strict=True):
        np.testing.assert_array_equal(own, jnp.stack(members))


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple, tuple, str | int]:
    """(image shape, window size, strides, padding): side by side, overlapping and with gaps."""
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    strides = draw(st.one_of(st.just(size), STEPS))
    padding = draw(st.sampled_from(("valid", "same", *range(min(size)))))
    height, width = (k + draw(st.integers(0, 5)) for k in size)
    return (draw(st.integers(1, 2)), height, width, draw(st.integers(1, 2))), size, strides, padding


def xla_max_pool(images: jax.Array, size: tuple, strides: tuple, pads: Any) -> jax.Array:
    """Flax's max-pool: `reduce_window` forward, `select_and_scatter` backward."""
    return nnx.max_pool(images, size, strides, pads)


@SETTINGS
@given(pools(), st.integers(0, 1000))
def test_max_pool_equals_flax_in_value_and_gradient_when_values_tie(case: tuple, seed: int):
    shape, size, strides, padding = case
    images = whole_numbers(shape, seed, largest=1)  # three values: most windows have ties
    pads = windows.window_pads(shape[1:3], size, strides, padding)
    expected = value_and_gradients(lambda x: xla_max_pool(x, size, strides, pads), images)
    for lowering in ("direct", "eigen", "xla"):
        got = value_and_gradients(lambda x, lo=lowering: pooling.max_pool(x, size, strides, pads, lo), images)
        assert_all_equal(got, expected)


@pytest.mark.parametrize("lowering", ["eigen", "matrix", "xla"])
def test_max_pool_keeps_whole_numbers_when_images_are_whole(lowering: pooling.Lowering):
    images = jnp.asarray([[[[-9], [-3]], [[-7], [-5]]]], jnp.int32)  # below zero: padding must not win
    pooled = pooling.max_pool(images, (2, 2), (1, 1), ((1, 0), (1, 0)), lowering)
    assert pooled.dtype == jnp.int32
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[-9, -3], [-7, -3]])


@SETTINGS
@given(pools(), st.integers(0, 1000))
def test_average_pool_equals_flax_in_value_and_gradient(case: tuple, seed: int):
    shape, size, strides, padding = case
    images = whole_numbers(shape, seed)
    pads = windows.window_pads(shape[1:3], size, strides, padding)
    expected = value_and_gradients(lambda x: nnx.avg_pool(x, size, strides, pads, count_include_pad=False), images)
    for lowering in ("direct", "eigen", "xla"):
        got = value_and_gradients(lambda x, lo=lowering: pooling.average_pool(x, size, strides, pads, lo), images)
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


class UsersNet(nnx.Module):
    """A net that knows nothing of this package: plain Flax layers, one below another module, one of its own making."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(2, 3, (3, 3), padding="SAME", rngs=rngs)
        self.block = nnx.Sequential(
            nnx.Conv(3, 4, (2, 3), strides=2, padding="VALID", rngs=rngs),
            nnx.relu,
            nnx.Conv(4, 4, (3, 3), padding="CIRCULAR", feature_group_count=2, rngs=rngs),
        )
        self.own = nnx.Conv(4, 2, (1, 1), conv_general_dilated=users_convolution, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.own(self.block(self.first(images)))


def users_convolution(*arguments: Any, **named: Any) -> jax.Array:
    """A convolution that someone chose on purpose."""
    return lax.conv_general_dilated(*arguments, **named)


def test_plug_sets_every_plain_conv_when_the_module_is_a_users_own():
    net, images = UsersNet(nnx.Rngs(0)), jax.random.normal(jax.random.key(1), (2, 8, 9, 2))
    plain = [net.first, net.block.layers[0], net.block.layers[2]]
    before = net(images)
    for lowering, expected in lowerings.CONVOLUTIONS.items():
        lowerings.plug(net, lowering)
        assert [conv.conv_general_dilated for conv in plain] == [expected] * 3
        np.testing.assert_allclose(net(images), before, rtol=1e-5, atol=1e-5)


def test_plug_leaves_a_conv_alone_when_its_owner_chose_the_convolution():
    net = UsersNet(nnx.Rngs(0))
    lowerings.plug(net, "matrix")
    assert net.own.conv_general_dilated is users_convolution


@pytest.mark.parametrize("conv", [eigen, matrix, lax.conv_general_dilated])
def test_convolution_of_one_to_nine_gives_the_known_numbers(conv: Callable):
    image = jnp.arange(1.0, 10).reshape(1, 3, 3, 1)
    kernels = jnp.ones((2, 2, 1, 1)) * jnp.array([1.0, 10, -1]).reshape(1, 1, 1, 3)
    maps = conv(image, kernels, (1, 1), "VALID", dimension_numbers=NHWC)[0]
    np.testing.assert_array_equal(maps[:, :, 0], [[12, 16], [24, 28]])
    np.testing.assert_array_equal(maps[:, :, 1], [[120, 160], [240, 280]])
    np.testing.assert_array_equal(maps[:, :, 2], [[-12, -16], [-24, -28]])
    np.testing.assert_array_equal(jax.nn.relu(maps)[:, :, 2], np.zeros((2, 2)))


@pytest.mark.parametrize("lowering", ["eigen", "matrix", "xla"])
def test_max_pool_of_four_numbers_gives_the_known_numbers_when_same(lowering: pooling.Lowering):
    pool = lowerings.Pool("max", (2, 2), (1, 1), "same")
    lowerings.plug(pool, lowering)
    pooled = pool(jnp.array([[4.0, 3], [2, 1]]).reshape(1, 2, 2, 1))
    assert pool.lowering == lowering
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[4, 3], [2, 1]])


@pytest.mark.parametrize(
    ("image", "kernel", "pads"),
    [((16, 16), (7, 7), ((3, 3), (3, 3))), ((9, 8), (3, 3), ((0, 1), (0, 1))), ((9, 10), (5, 2), ((2, 2), (0, 1)))],
)
def test_a_stem_folded_for_a_gpu_gives_the_same_numbers(image: Any, kernel: Any, pads: Any):
    images, weights = whole_numbers((2, *image, 3), 0), whole_numbers((*kernel, 3, 8), 1)
    window = windows.Window(kernel, (2, 2), (1, 1), pads)
    folded = lambda x, k: direct.convolve_by_xla(x, k, window, "highest")  # noqa: E731
    plain = lambda x, k: lax.conv_general_dilated(x, k, (2, 2), pads, dimension_numbers=NHWC)  # noqa: E731
    assert_all_equal(value_and_gradients(folded, images, weights), value_and_gradients(plain, images, weights))


@pytest.mark.parametrize(("size", "strides"), [((3, 3), (2, 2)), ((3, 2), (2, 1)), ((2, 2), (3, 3)), ((5, 3), (2, 2))])
def test_shares_collected_for_a_gpu_are_those_of_the_cpu(size: Any, strides: Any):
    window, shape = windows.Window(size, strides), (2, 11, 12, 3)
    y, x = window.positions(*shape[1:3])
    shares = [whole_numbers((2, y, x, 3), n) for n in range(size[0] * size[1])]
    expected = windows.collect(shares, shape, window)
    np.testing.assert_array_equal(pooling.collect_by_remainder(shares, shape, window), expected)
