"""The Classifier: what it takes, what it gives, what it refuses."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import engine
from engine.config.contract import InputSpec
from engine.data.pictures.images import fit_values
from engine.devices.executables import Executables
from engine.host.clock import Clock
from engine.inference import forward
from engine.inference.classifier import Classifier
from engine.inference.forward import PADDED_SIZES
from tests.conftest import TINY, make_dataset


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return engine.fit(TINY, make_dataset(128), epochs=2, validation=0, verbose=False).classifier


@pytest.fixture
def images() -> np.ndarray:
    return make_dataset(6, 5).images


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "png")
    return file.getvalue()


def test_files_bytes_pictures_and_arrays_in_any_mix_give_the_same_as_one_array(classifier, images, tmp_path):
    path = tmp_path / "a picture é.PNG"
    path.write_bytes(png(images[0]))
    mixed = [path, str(path), png(images[1]), Image.fromarray(images[2][..., 0]), images[3], images[4][..., 0]]
    expected = classifier.predict(images[[0, 0, 1, 2, 3, 4]], top=3)
    assert classifier.predict(mixed, top=3) == expected
    assert classifier.predict(path, top=3) == classifier.predict(images[:1], top=3)


def test_prediction_names_classes_by_falling_probability(classifier, images):
    probabilities = classifier.predict_proba(images)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    for row, prediction in zip(probabilities, classifier.predict(images, top=3), strict=True):
        assert prediction.label == f"band {row.argmax()}" == prediction.top[0][0]
        assert prediction.probability == row.max()
        assert [p for _, p in prediction.top] == sorted(row, reverse=True)


def test_top_k_is_that_of_jax(classifier, images):
    indices, probabilities = classifier.top_k(images, 2)
    expected, order = jax.lax.top_k(classifier.predict_proba(images), 2)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(probabilities, expected)
    with pytest.raises(engine.InputError, match=r"top: got 0; expected a whole number of at least 1"):
        classifier.top_k(images, 0)


def test_folder_is_predicted_in_order_of_names(classifier, images, tmp_path):
    for i in (2, 0, 1):
        (tmp_path / f"{i}.png").write_bytes(png(images[i]))
    assert classifier.predict(tmp_path) == classifier.predict(images[:3])


def test_any_number_of_images_gives_the_same_and_compiles_few_sizes(classifier):
    many = make_dataset(600, 6).images
    whole = classifier.outputs(many)
    for count in (0, 1, 2, 7, 8, 9, 63, 65, 255, 257):
        np.testing.assert_allclose(classifier.outputs(many[:count]), whole[:count], rtol=1e-5, atol=1e-6)
    assert classifier.executables.num_compiled("outputs") <= len(PADDED_SIZES)


def test_color_picture_is_turned_into_the_model_s_colours(classifier, images):
    grey = Image.fromarray(images[0][..., 0])
    assert classifier.predict(grey.convert("RGB")) == classifier.predict(grey)


def test_picture_of_another_size_is_refused_naming_both_unless_told_how_to_resize(classifier):
    picture = Image.new("RGB", (20, 10))
    with pytest.raises(engine.InputError, match=r"got an image of 10×20×3; expected 8×8×1.*resize"):
        classifier.predict(picture)
    assert len(classifier.predict(picture, resize="pad")) == 1


def test_arrays_that_do_not_fit_are_refused_naming_both(classifier):
    with pytest.raises(engine.InputError, match=r"images: got uint8 of 9×8×1; expected uint8 of 8×8×1"):
        classifier.predict(np.zeros((2, 9, 8, 1), np.uint8))
    with pytest.raises(engine.InputError, match=r"images: got float32 from 0 to 0; expected uint8, or a value_range"):
        classifier.predict(np.zeros((2, 8, 8, 1), np.float32))
    with pytest.raises(engine.InputError, match=r"got an image of 8×8×3; expected 8×8×1"):
        classifier.predict([np.zeros((8, 8, 3), np.uint8)])


@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1), (0, 255), (0, 65535)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_of_a_stated_range_are_the_uint8_levels_they_stand_for(classifier, images, value_range, dtype):
    low, high = value_range
    floats = (images / 255 * (high - low) + low).astype(dtype)
    expected = classifier.predict_proba(images)
    np.testing.assert_array_equal(classifier.predict_proba(floats, value_range=value_range), expected)
    one = classifier.predict([floats[0], images[0], floats[0, ..., 0]][::2], value_range=value_range)
    assert one == classifier.predict([images[0], images[0]])
    assert [found for _, found in classifier.stream(floats, value_range=value_range)] == classifier.predict(images)


def test_float_images_of_another_range_than_stated_are_refused_and_not_scored(classifier, images):
    floats = images / np.float32(255)
    for ask in (classifier.predict, classifier.predict_proba):
        with pytest.raises(engine.InputError, match=r"images: got float32 from 0.* to 0\.\d+; .* value_range=\(0, 1\)"):
            ask(floats, value_range=(0, 255))
        with pytest.raises(engine.InputError, match=r"got float32 from 0 to 2\d+; expected values from 0 to 1"):
            ask(images.astype(np.float32), value_range=(0, 1))


def test_arrays_of_other_libraries_are_taken(classifier, images):
    expected = classifier.predict_proba(images)
    np.testing.assert_array_equal(classifier.predict_proba(jax.numpy.asarray(images)), expected)
    np.testing.assert_array_equal(classifier.predict_proba([jax.numpy.asarray(image) for image in images]), expected)


def test_arrays_of_mixed_sizes_are_resized_as_pictures_are_if_told_how(classifier):
    draw = np.random.default_rng(0)
    arrays = [draw.integers(0, 256, (h, w, 1), dtype=np.uint8) for h, w in ((8, 8), (12, 9), (20, 30), (5, 3))]
    pictures = [Image.fromarray(array[..., 0]) for array in arrays]
    for rule in ("stretch", "crop", "pad"):
        assert classifier.predict(arrays, 3, rule) == classifier.predict(pictures, 3, rule)
        many = np.stack([arrays[2]] * 3)
        assert classifier.predict(many, 3, rule) == classifier.predict([pictures[2]] * 3, 3, rule)
    with pytest.raises(engine.InputError, match=r"got an image of 12×9×1; expected 8×8×1\..*resize="):
        classifier.predict(arrays)
    with pytest.raises(engine.InputError, match=r"got an image of 20×30×3; expected 8×8×1"):
        classifier.predict([np.zeros((20, 30, 3), np.uint8)], resize="pad")  # colours of arrays are not turned to grey


def test_float_model_takes_its_floats_and_refuses_those_of_another_scale(images):
    inputs = np.random.default_rng(0).random((64, 8, 8, 1), np.float32)
    labels = (inputs.mean((1, 2, 3)) > 0.5).astype(np.int32)
    float_model = engine.fit(TINY, (inputs, labels), epochs=1, validation=0, verbose=False).classifier
    assert len(float_model.predict(inputs)) == 64
    assert float_model.predict(list(inputs[:3])) == float_model.predict(inputs[:3])
    for wrong in (inputs * 255, inputs / 255):
        with pytest.raises(
            engine.InputError, match=r"got float32 from .*; expected values like those .* trained on, 0.* to "
        ):
            float_model.predict(wrong.astype(np.float32).round(6))
    with pytest.raises(
        engine.InputError, match=r"value_range: got \(0, 1\); expected none: the model's input is float32"
    ):
        float_model.predict(inputs, value_range=(0, 1))


@pytest.mark.parametrize("usual", [(0, 1), (-1, 1), (0, 255)])
def test_model_of_float_pictures_takes_files_as_levels_of_its_range(images, usual):
    black, white = usual
    inputs = (images / 255 * (white - black) + black).astype(np.float32)
    found = engine.fit(TINY, (inputs, np.arange(len(inputs)) % 3), epochs=1, validation=0, verbose=False).classifier
    files = [png(image) for image in images]
    np.testing.assert_allclose(found.predict_proba(files), found.predict_proba(inputs), rtol=1e-4, atol=1e-5)
    assert len(found.predict(Image.new("L", (9, 9)), resize="stretch")) == 1


def test_model_of_standardized_floats_says_how_to_train_for_files():
    inputs = np.random.default_rng(0).normal(0, 1, (60, 8, 8, 1)).astype(np.float32)
    model = engine.fit(TINY, (inputs, np.arange(60) % 3), epochs=1, validation=0, verbose=False).classifier
    with pytest.raises(engine.InputError, match=r"got a picture; .* 8×8×1 \(float32\).*train with value_range="):
        model.predict(Image.new("L", (8, 8)))


# Streams


def test_stream_answers_for_each_picture_in_order_and_says_which_are_bad(classifier, images, tmp_path):
    pictures = [png(images[i % 6]) for i in range(200)]
    for place in (0, 63, 64, 199):
        pictures[place] = b"no picture %d" % place
    answers = list(classifier.stream(iter(pictures), top=2))
    assert [picture for picture, _ in answers] == pictures
    expected = classifier.predict(images, top=2)
    for place, (_, answer) in enumerate(answers):
        if place in (0, 63, 64, 199):
            assert isinstance(answer, engine.InputError)
        else:
            assert answer.label == expected[place % 6].label
            assert answer.probability == pytest.approx(expected[place % 6].probability, rel=1e-5)


def test_stream_reads_only_a_few_batches_ahead(classifier, images):
    taken = []

    def pictures():
        for i in range(100_000):
            taken.append(i)
            yield png(images[0])

    answers = classifier.stream(pictures())
    for _ in range(65):
        next(answers)
    assert len(taken) < 1000
    answers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_draws_of_a_stream_are_those_of_the_whole(images):
    flips = engine.AugmentConfig(horizontal_flip=True, noise=40)
    data = make_dataset(128)
    classifier = engine.fit(TINY, data, epochs=1, validation=0, augment=flips, verbose=False).classifier
    many = data.images[:100]
    whole = classifier.predict_proba(many, tta=2)
    streamed = [answer.probability for _, answer in classifier.stream(map(png, many), tta=2)]
    np.testing.assert_allclose(streamed, whole.max(-1), rtol=1e-4)
    np.testing.assert_allclose(classifier.predict_proba(list(map(png, many)), tta=2), whole, rtol=1e-4, atol=1e-6)


# Threads


def test_many_threads_asking_at_once_get_right_answers_and_each_size_is_compiled_once():
    classifier = engine.fit(TINY, make_dataset(64), epochs=0, validation=0, verbose=False).classifier
    many = make_dataset(300, 3).images
    fresh = classifier.with_weights(classifier.record, classifier.params, classifier.model_state)
    fresh.executables = Executables(Clock())
    expected, layer = classifier.outputs(many), classifier.features(many, "conv_1")
    counts, start = [1, 2, 7, 8, 9, 60, 64, 65, 200, 256, 300] * 2, threading.Barrier(8)

    def ask(turn: int) -> None:
        start.wait()
        for count in counts[turn:] + counts[:turn]:
            np.testing.assert_allclose(fresh.predict_proba(many[:count]), expected[:count], rtol=1e-5, atol=1e-6)
            listed = fresh.predict_proba([png(image) for image in many[:count]])
            np.testing.assert_allclose(listed, expected[:count], rtol=1e-5, atol=1e-6)
            found = fresh.features(many[:count], "conv_1")
            np.testing.assert_allclose(found, layer[:count], rtol=1e-5, atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert all(fresh.executables.num_compiled(task) == len(PADDED_SIZES) for task in ("outputs", "features"))


def test_all_bad_files_are_named_at_once(classifier, images, tmp_path):
    good, text, cut = tmp_path / "good.png", tmp_path / "text.jpg", tmp_path / "cut.png"
    good.write_bytes(png(images[0]))
    text.write_text("no image")
    cut.write_bytes(png(images[0])[:-30])
    with pytest.raises(engine.InputError) as error:
        classifier.predict([good, text, cut, tmp_path / "gone.png"])
    message = str(error.value)
    assert "text.jpg: got a file that is not an image" in message
    assert "cut.png: got " in message
    assert "gone.png: got " in message
    assert "good.png" not in message


def test_empty_folder_is_refused(classifier, tmp_path):
    with pytest.raises(engine.InputError, match="got an empty folder; expected image files"):
        classifier.predict(tmp_path)


def test_no_pictures_give_no_predictions(classifier):
    assert classifier.predict([]) == []


def test_evaluating_on_data_of_another_kind_names_both_sides(classifier):
    data = make_dataset(20)
    with pytest.raises(engine.InputError, match=r"got images of 12×12×1; expected 8×8×1"):
        classifier.evaluate(make_dataset(20, size=12))
    message = r"stripes: got classes that the model lacks \(band 3\); expected those of the model \(band 0"
    with pytest.raises(engine.InputError, match=message):
        classifier.evaluate(make_dataset(20, num_classes=4))
    with pytest.raises(engine.InputError, match=r"stripes: got float targets; expected class labels"):
        classifier.evaluate(engine.Dataset(data.images, np.zeros((20, 3), np.float32), (), "stripes", ""))


def test_data_that_lack_a_class_are_scored(classifier):
    data = make_dataset(60)
    some = data.take(np.flatnonzero(data.labels != 1), "two")
    two = engine.dataset(some.images, some.labels // 2, ["band 0", "band 2"])
    assert classifier.evaluate(two) == classifier.evaluate(some)


def test_last_partial_batch_is_counted_exactly_once(classifier):
    data = make_dataset(513, 8)
    halves = [classifier.evaluate(data.take(np.arange(a, b), "part")) for a, b in ((0, 100), (100, 513))]
    whole = classifier.evaluate(data)
    assert whole["n"] == 513
    assert whole["accuracy"] * 513 == pytest.approx(sum(m["accuracy"] * m["n"] for m in halves))
    assert whole["loss"] * 513 == pytest.approx(sum(m["loss"] * m["n"] for m in halves), rel=1e-5)


def test_input_contract_is_applied_exactly(images):
    data = make_dataset(64)
    config = engine.RunConfig("c", TINY, engine.DataConfig(scale=0.5, mean=(3.0,), std=(7.0,)))
    from engine.data.decoded.dataset import Splits
    from engine.host.clock import Clock
    from engine.runs.session import Session

    session = Session(config, Splits(data), Clock(), Path("unused"))
    classifier = session.classifier()
    shown = (images.astype(np.float32) * 0.5 - 3) / 7
    outputs, _ = session.setup.network.apply(session.state.params, session.state.model_state, shown, None, None)
    np.testing.assert_allclose(classifier.predict_proba(images), jax.nn.softmax(outputs), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "most"),
    [
        ((28, 28, 1), 1024),
        ((32, 32, 3), 256),
        ((180, 180, 3), 64),
        ((1000, 1000, 3), 5),
        ((9000, 9000, 3), 1),
        ((4,), 1024),
    ],
)
def test_larger_images_are_asked_about_in_smaller_batches(shape, most):
    assert forward._most_at_once(shape) == most


def test_batches_are_as_large_as_memory_allows_on_other_devices(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert forward._most_at_once((32, 32, 3)) == 1024
    assert forward._most_at_once((180, 180, 3)) == 172


def test_columns_of_paths_and_numbers_of_numpy_are_taken(classifier, images, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, images, strict=False):
        path.write_bytes(png(image))
    expected = classifier.predict(paths, top=2)
    assert classifier.predict(np.array(list(map(str, paths))), top=np.int64(2)) == expected
    assert classifier.predict(pd.Series(paths), top=2) == expected
    assert [answer for _, answer in classifier.stream(str(paths[0]), top=2)] == expected[:1]


@pytest.mark.parametrize("given", [[None], [[[0, 1], [2, 3]]], "", [5]])
def test_what_is_no_picture_is_refused_in_words(classifier, given):
    with pytest.raises(engine.InputError, match=r"Pass one of these|Name a file or folder"):
        classifier.predict(given)


def test_no_images_of_a_model_of_truths_give_no_answers(images):
    spec = InputSpec((8, 8, 1), value_range=(0.0, 1.0))
    assert fit_values(images[:0], spec, None, "images").shape == (0, 8, 8, 1)
