"""Weights of a file become a run: every array at its place, the contract, the classes; what does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.checkpoints.packing import pack
from engine.errors import InputError
from engine.importers import catalogue
from engine.importers.catalogue import IMAGENET_STD
from engine.importers.importing import Wanted, imagenet_classes, read_class_names
from engine.importers.load import make_classifier, save_run
from engine.inference.single import SingleClassifier
from engine.models import Dense
from tests.importers.tiny import SIZE, VARIANT, draw_arrays, known_as_tiny, write_h5

__all__ = ["known_as_tiny"]
IMAGES = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def imported(path: Path, arrays: dict[str, np.ndarray], wanted: Wanted, **changed) -> tuple[SingleClassifier, list]:
    said: list[str] = []
    write_h5(path / "tiny.h5", arrays)
    return make_classifier(replace(VARIANT, **changed), wanted, str(path / "tiny.h5"), said.append), said


def expected(arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """[n d]: what the network gives before its classifier, in NumPy: caffe's inputs, blue first."""
    inputs = images[..., ::-1].astype(np.float64) - (103.939, 116.779, 123.68)
    places = range(0, SIZE - 2, 2)
    windows = np.stack([inputs[:, y : y + 3, x : x + 3] for y in places for x in places], 1)  # [n p 3 3 c]
    maps = np.einsum("npyxc,yxco->npo", windows, arrays["conv1/kernel"])
    centred = (maps - arrays["bn1/moving_mean"]) / np.sqrt(arrays["bn1/moving_variance"] + 1e-3)
    return np.maximum(centred * arrays["bn1/gamma"] + arrays["bn1/beta"], 0).mean(1)


def test_an_imported_model_computes_what_its_weights_say(tmp_path: Path):
    arrays = draw_arrays()
    classifier, said = imported(tmp_path, arrays, Wanted())
    logits = expected(arrays, IMAGES) @ arrays["predictions/kernel"] + arrays["predictions/bias"]
    found = classifier.features(IMAGES, "predictions")
    np.testing.assert_allclose(found, logits, atol=1e-4 * abs(logits).max())
    assert said == ["the first kernel was reversed: it expects red first, where the file has blue first"]
    assert classifier.class_names == imagenet_classes()


def test_the_run_is_an_ordinary_one(tmp_path: Path):
    classifier, _ = imported(tmp_path, draw_arrays(), Wanted())
    save_run(classifier, tmp_path / "run")
    restored = engine.restore(tmp_path / "run")
    np.testing.assert_array_equal(restored.outputs(IMAGES), classifier.outputs(IMAGES))
    assert restored.input_spec == classifier.input_spec
    about = restored.record.provenance
    assert about == classifier.record.provenance
    assert (about.file, about.licence, about.importer) == ("tiny.h5", "MIT", engine.__version__)
    pack(tmp_path / "run", tmp_path / "run.engine")
    assert engine.restore(tmp_path / "run.engine").predict(IMAGES, top=2) == restored.predict(IMAGES, top=2)
    with pytest.raises(InputError, match="contains"):
        save_run(classifier, tmp_path / "run")
    save_run(classifier, tmp_path / "run", overwrite=True)


def test_import_that_cannot_be_written_says_to_import_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    classifier, _ = imported(tmp_path, draw_arrays(), Wanted())

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", fail)
    with pytest.raises(InputError, match=r"out: got .*no space left.*Free some space there, .* import again"):
        save_run(classifier, tmp_path / "run")
    monkeypatch.undo()
    save_run(classifier, tmp_path / "run")


def test_an_imported_model_is_fine_tuned_for_other_classes(tmp_path: Path):
    classifier, _ = imported(tmp_path, draw_arrays(), Wanted())
    labels = np.arange(12) % 2
    images = np.where(labels[:, None, None, None], 200, 40) + np.zeros((1, SIZE, SIZE, 3), np.int64)
    data = engine.dataset(images.astype(np.uint8), labels, ("dark", "light"))
    result = engine.finetune(classifier, data, freeze=["conv1", "bn1"], epochs=1, validation=None, verbose=False)
    assert result.classifier.class_names == ("dark", "light")
    assert result.classifier.record.provenance == classifier.record.provenance  # the licence of weights stays with them
    np.testing.assert_array_equal(
        result.classifier.params["layers"][0]["kernel"], classifier.params["layers"][0]["kernel"]
    )


def test_without_top_the_outputs_are_the_means_of_the_last_maps(tmp_path: Path):
    arrays = draw_arrays()
    for given in (arrays, draw_arrays(top=False)):
        classifier, said = imported(tmp_path, given, Wanted(top=False))
        found = expected(given, IMAGES)
        np.testing.assert_allclose(classifier.outputs(IMAGES), found, atol=1e-4 * abs(found).max())
        assert ("dropped" in " ".join(said)) == (given is arrays)
    assert classifier.class_names == ()


def test_one_channel_sums_the_first_kernel_and_says_so(tmp_path: Path):
    arrays = draw_arrays()
    contract = catalogue.FROM_MINUS_1
    classifier, said = imported(tmp_path, arrays, Wanted(channels=1), contract=contract)
    colour, _ = imported(tmp_path, arrays, Wanted(), contract=contract)
    grey = IMAGES[..., :1]
    np.testing.assert_allclose(classifier.outputs(grey), colour.outputs(np.repeat(grey, 3, -1)), atol=1e-5)
    assert said == ["the first kernel was summed over its three channels, for images of one"]


def test_another_size_and_the_contract(tmp_path: Path):
    classifier, _ = imported(tmp_path, draw_arrays(), Wanted(height_width=(11, 9)))
    spec = classifier.input_spec
    assert (spec.shape, spec.mean, spec.resize, spec.interpolation) == (
        (11, 9, 3), (123.68, 116.779, 103.939), "stretch", "nearest",
    )  # fmt: skip


def test_names_of_other_classes(tmp_path: Path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n\nfox\n", encoding="utf-8")
    classifier, _ = imported(tmp_path, draw_arrays(3), Wanted(class_names=read_class_names(names)))
    assert classifier.class_names == ("cat", "dog", "fox")
    for wrong in ("cat\ncat\n", "cat\n", ""):
        names.write_text(wrong)
        with pytest.raises(InputError, match="at least two names, each once"):
            read_class_names(names)
    names.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="no text in UTF-8"):
        read_class_names(names)


@pytest.mark.parametrize(
    ("arrays", "wanted", "message"),
    [
        (draw_arrays(5), Wanted(), r"a classifier of 5 classes.*expected 1,000, ImageNet's"),
        (draw_arrays(5), Wanted(class_names=("a", "b")), r"expected 2, as many as --class-names"),
        (draw_arrays(top=False), Wanted(), r"no weights of predictions, the classifier.*--no-top"),
        (draw_arrays() | {"conv1/kernel": np.ones((3, 3, 3, 5))}, Wanted(), r"got 3×3×3×5; expected 3×3×3×4"),
        (draw_arrays() | {"other/kernel": np.ones((3, 3))}, Wanted(), r"1 array that this model lacks: other/kernel"),
        ({"other/kernel": np.ones((3, 3))}, Wanted(top=False), r"nothing for 5 of 5 arrays"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict, wanted: Wanted, message: str):
    with pytest.raises(InputError, match=message):
        imported(tmp_path, arrays, wanted)


@pytest.mark.parametrize("name", ["mobilenet_25_128", "densenet121"])
def test_weights_of_another_family_are_recognised_by_their_numbers_before_all_else(tmp_path: Path, name: str):
    total = sum(catalogue_counts(name))
    arrays = {"some/kernel": np.broadcast_to(np.float32(1), (1, total))}
    with pytest.raises(InputError) as raised:
        imported(tmp_path, arrays, Wanted())  # whose first problem would be that there is no classifier: --no-top
    assert f"got {total:,} numbers, exactly those of {name}; expected" in raised.value.problems[0]
    assert raised.value.problems[0].endswith(f"Import it as {name}.")


def catalogue_counts(name: str) -> tuple[int, int]:
    from engine.importers.variants import VARIANTS

    return VARIANTS[name].count()


def test_statistics_of_inputs_are_asked_for_and_never_guessed(tmp_path: Path):
    deviations = np.asarray(IMAGENET_STD, np.float32)
    arrays = draw_arrays() | {
        "normalization/mean": np.asarray([0.4, 0.5, 0.6], np.float32),
        "normalization/variance": deviations,
        "normalization/count": np.zeros(1, np.float32),
    }
    of_file = {"contract": catalogue.AS_TORCH, "is_ambiguous": True}
    with pytest.raises(InputError, match="Add --normalization imagenet"):
        imported(tmp_path, arrays, Wanted(), **of_file)
    by_answer = {}
    for answer in ("imagenet", "file"):
        classifier, _ = imported(tmp_path, arrays, Wanted(normalization=answer), **of_file)
        by_answer[answer] = classifier.input_spec.std
        np.testing.assert_allclose(classifier.input_spec.mean, (0.4, 0.5, 0.6), rtol=1e-6)
    np.testing.assert_allclose(by_answer["imagenet"], deviations, rtol=1e-6)
    np.testing.assert_allclose(by_answer["file"], np.sqrt(deviations), rtol=1e-6)
    with pytest.raises(InputError, match="normalised in one way"):
        imported(tmp_path, draw_arrays(), Wanted(normalization="file"))


@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b"GIF89a" + b[6:], lambda b: b""])
def test_a_damaged_or_foreign_file_is_an_error_in_words(tmp_path: Path, change):
    file = write_h5(tmp_path / "tiny.h5", draw_arrays())
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(InputError, match="tiny"):
        make_classifier(VARIANT, Wanted(), str(file), print)


def test_pretrained_gives_a_classifier_of_a_file(tmp_path: Path, known_as_tiny):
    file = write_h5(tmp_path / "tiny.h5", draw_arrays(2))
    classifier = engine.pretrained("tiny", file, class_names=["a", "b"], say=lambda text: None)
    assert classifier.predict(IMAGES)[0].label in ("a", "b")
    assert isinstance(classifier.record.config.model.layers[-1], Dense)
    for options, message in (({"image_size": 0}, "pixels a side"), ({"class_names": ["a", "a"]}, "each once")):
        with pytest.raises(InputError, match=message):
            engine.pretrained("tiny", file, **options)
    with pytest.raises(InputError, match="Did you mean resnet50"):
        engine.pretrained("resnet5")
