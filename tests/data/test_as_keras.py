"""data.split-as keras: the files and the validation share of Keras's image_dataset_from_directory, in its order."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

os.environ.setdefault("KERAS_BACKEND", "jax")

from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset
from engine.data.load import load_splits
from engine.data.sources.as_keras import split_as_keras
from engine.data.sources.folder import open_folder
from engine.errors import InputError

Share = dict[str, tuple[list[str], list[int], list[str]]]
FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def keras_share(folder: Path, fraction: float, seed: int, class_names: Any = None, follow_links: bool = False) -> Share:
    """(files, labels, class names) of both subsets, by the functions that image_dataset_from_directory calls."""
    from keras.src.utils import dataset_utils

    listing = dataset_utils.index_directory(
        str(folder), "inferred", FORMATS, class_names, True, seed, follow_links, verbose=False
    )
    files, labels, names = listing
    found = {}
    for subset in ("training", "validation"):
        part = dataset_utils.get_training_or_validation_split(files, labels, fraction, subset)
        found[subset] = (list(part[0]), list(map(int, part[1])), list(names))
    return found


def our_share(folder: Path, fraction: float, seed: int, **config: Any) -> Share:
    """The same by ours, of files that are not decoded."""
    data = DataConfig(path=folder, split_as="keras", **config)
    source = open_folder(data, lambda text: None)
    names = source.listed_names("train")
    files = [file for name in names for file in source.splits["train"].get(name, ())]
    labels = np.array([k for k, name in enumerate(names) for _ in source.splits["train"].get(name, ())], np.int32)
    whole = Dataset(np.arange(len(files), dtype=np.float32).reshape(-1, 1, 1, 1), labels, names, "listing", "")
    train, validation = split_as_keras(whole, fraction, seed)
    assert validation is not None
    return {
        subset: ([files[int(k)].path for k in part.images[:, 0, 0, 0]], part.labels.tolist(), list(names))
        for subset, part in (("training", train), ("validation", validation))
    }


def laid_out(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


part_names = st.text("aB.-_ 10é", min_size=1, max_size=4).filter(lambda name: name.strip(". ") == name)
file_names = st.builds(
    lambda folders, name, suffix: "/".join([*folders, name + suffix]),
    st.lists(part_names, max_size=2),
    part_names,
    st.sampled_from([".jpg", ".JPG", ".png", ".gif", ".webp", ".tif", ".txt", ""]),
)
classes = st.dictionaries(
    st.text("aBz.-_ 0é", min_size=1, max_size=3).filter(lambda name: name.strip(". ") == name),
    st.lists(file_names, min_size=3, max_size=8, unique_by=str.lower),
    min_size=2,
    max_size=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=classes, fraction=st.sampled_from([0.2, 0.25, 0.5]), seed=st.integers(0, 2**32 - 1), number=st.integers(0))
def test_generated_folders_are_listed_and_split_as_keras_does(tree, fraction, seed, number, tmp_path_factory):
    root = tmp_path_factory.mktemp("tree") / "data"
    for name, files in tree.items():
        for file in (f"{name}/first.png", f"{name}/second.jpg", f"{name}/third.gif", *(f"{name}/{f}" for f in files)):
            path = root / file
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except (FileExistsError, NotADirectoryError, IsADirectoryError):  # a file and a folder of one name
                continue
    assert our_share(root, fraction, seed) == keras_share(root, fraction, seed)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """What Keras lists otherwise than this package does: hidden and system files, empty folders, links, suffixes."""
    names = (
        "b/1.png", "b/2.JPG", "b/sub-1/3.png", "b/sub/4.png", "b/sub/deep/5.png", "b/._6.png", "b/.hidden/7.png",
        "B/1.webp", "B/2.gif", "B/3.png", "@eaDir/b/thumb.png", ".git/x.png", "empty/notes.txt", "c/8.tif", "c/.png",
    )  # fmt: skip
    root = laid_out(tmp_path / "odd", names)
    laid_out(tmp_path / "elsewhere", ("9.png", "10.png"))
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "11.png").symlink_to(tmp_path / "elsewhere" / "9.png")
    (root / "b" / "12.png").symlink_to("gone.png")
    return root


@pytest.mark.parametrize("follow_links", [False, True])
def test_odd_folders_are_listed_as_keras_does(odd: Path, follow_links: bool):
    ours = our_share(odd, 0.3, 7, follow_links="on" if follow_links else None)
    assert ours == keras_share(odd, 0.3, 7, None, follow_links)


def test_what_is_odd_about_the_listing_is_said(odd: Path):
    messages: list[str] = []
    open_folder(DataConfig(path=odd, split_as="keras"), messages.append)
    assert not [message for message in messages if "left out" in message]
    assert f"{odd}: listed as Keras does, with 4 hidden or system files and classes without files (empty)" in messages
    assert "1 .tif (c/8.tif)" in messages[-1]
    assert "1 linked folders (data.follow-links off) (more)" in messages[-1]


def test_class_names_give_the_order_as_in_keras(odd: Path):
    names = ("linked", "b")
    assert our_share(odd, 0.4, 3, class_names=names) == keras_share(odd, 0.4, 3, list(names))


def test_share_of_flowers_has_the_734_files_of_keras(tmp_path: Path):
    counts = {"daisy": 633, "dandelion": 898, "roses": 641, "sunflowers": 699, "tulips": 799}
    root = tmp_path / "flower_photos"
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i * 7919 % 100003:06}_{i:x}.jpg").touch()
    (root / "LICENSE.txt").touch()
    ours, keras = our_share(root, 0.2, 123), keras_share(root, 0.2, 123)
    assert (len(ours["training"][0]), len(ours["validation"][0])) == (2936, 734)
    assert ours == keras


def test_decoded_splits_hold_the_pictures_of_those_files_in_that_order(tmp_path: Path):
    root, cache = tmp_path / "data", tmp_path / "cache"
    for number in range(21):
        place = root / "abc"[number % 3] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), number).save(place)
    data = DataConfig(path=root, split_as="keras", validation_fraction=0.3, color="grayscale", cache_dir=cache)
    splits, keras = load_splits(data, 5, lambda text: None), keras_share(root, 0.3, 5)
    for ours, subset in ((splits.train, "training"), (splits.validation, "validation")):
        assert ours is not None
        assert np.asarray(ours.images)[:, 0, 0, 0].tolist() == [int(Path(path).stem) for path in keras[subset][0]]
        assert ours.labels.tolist() == keras[subset][1]


def test_share_that_is_empty_is_refused_as_keras_refuses_it(tmp_path: Path):
    root = laid_out(tmp_path / "data", ("a/1.png", "b/1.png"))
    with pytest.raises(InputError, match=r"data\.validation_fraction: got 0\.2; expected a share that leaves both"):
        our_share(root, 0.2, 1)


@pytest.mark.parametrize("more", [{"stratified": True}, {"on_bad_file": "skip"}])
def test_options_that_keras_has_not_are_refused(more: dict[str, Any]):
    with pytest.raises(InputError, match="split-as keras"):
        DataConfig(path=Path("x"), split_as="keras", **more)


def test_loops_of_links_end(tmp_path: Path):
    root = laid_out(tmp_path / "data", ("a/1.png", "b/2.png"))
    (root / "a" / "loop").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    ours = our_share(root, 0.5, 1, follow_links="on")
    assert len(ours["training"][0]) + len(ours["validation"][0]) < 8
