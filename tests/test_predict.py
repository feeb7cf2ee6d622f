"""The Classifier: what it takes, what it gives, what it refuses."""

import io
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import engine
from engine.predict import PADDED_SIZES, Classifier
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


def test_folder_is_predicted_in_order_of_names(classifier, images, tmp_path):
    for i in (2, 0, 1):
        (tmp_path / f"{i}.png").write_bytes(png(images[i]))
    assert classifier.predict(tmp_path) == classifier.predict(images[:3])


def test_any_number_of_images_gives_the_same_and_compiles_few_sizes(classifier):
    many = make_dataset(600, 6).images
    whole = classifier.outputs(many)
    for count in (0, 1, 2, 7, 8, 9, 63, 65, 255, 257):
        np.testing.assert_allclose(classifier.outputs(many[:count]), whole[:count], rtol=1e-5, atol=1e-6)
    assert classifier._forward(None)._cache_size() <= len(PADDED_SIZES)


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
    with pytest.raises(engine.InputError, match=r"images: got float32 of 8×8×1; expected uint8 of 8×8×1"):
        classifier.predict(np.zeros((2, 8, 8, 1), np.float32))
    with pytest.raises(engine.InputError, match=r"got an image of 8×8×3; expected 8×8×1"):
        classifier.predict([np.zeros((8, 8, 3), np.uint8)])


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
    with pytest.raises(engine.InputError, match=r"got images of 12×12×1 \(uint8\); expected 8×8×1"):
        classifier.evaluate(make_dataset(20, size=12))
    with pytest.raises(engine.InputError, match=r"got 2 classes \(band 0, band 1\); expected the model's 3"):
        classifier.evaluate(make_dataset(20, num_classes=2))


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
    from engine.clock import Clock
    from engine.data.dataset import Splits
    from engine.session import Session

    session = Session(config, Splits(data), Clock(), Path("unused"))
    classifier = session.classifier()
    shown = (images.astype(np.float32) * 0.5 - 3) / 7
    outputs, _ = session._network.apply(session.state.params, session.state.model_state, shown, None, None)
    np.testing.assert_allclose(classifier.predict_proba(images), jax.nn.softmax(outputs), rtol=1e-5)
