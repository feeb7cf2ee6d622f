"""A folder of images becomes a dataset: its layout, its order, its bad files, and when it is decoded anew."""

import os
import re
import shlex
import shutil
import threading
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.config.contract import InputSpec
from engine.config.data import DataConfig
from engine.data.contract import input_spec, under_contract
from engine.data.decoded.dataset import Dataset, image_hashes
from engine.data.load import load_splits
from engine.data.pictures.images import read_picture
from engine.data.sources import files as files_module
from engine.data.sources.class_folders import name_of
from engine.data.sources.files import decode_files
from engine.data.sources.folder import FolderSource, open_folder
from engine.data.sources.walk import walk
from engine.errors import InputError

DRAW = np.random.default_rng(0)


def picture(path: Path, height: int = 6, width: int = 9, mode: str = "RGB") -> Path:
    """A file of noise, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = DRAW.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(levels).convert(mode).save(path)
    return path


def pictures(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / name)
    return root


def opened(root: Path, messages: list[str] | None = None, **config: Any) -> FolderSource:
    config.setdefault("cache_dir", root.parent / "cache")
    return open_folder(DataConfig(path=root, **config), (messages if messages is not None else []).append)


def train(root: Path, messages: list[str] | None = None, **config: Any) -> Dataset:
    return opened(root, messages, **config).load("train", "data.split")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes, five files, three of them in an odd place or of an odd name."""
    return pictures(
        tmp_path / "pets", "dog/b.png", "dog/a.JPG", "cat/deep/deeper/c.webp", "cat/é ü.PNG", "cat/x.y.Tiff"
    )


# Layout


def test_every_sub_folder_is_a_class_and_files_come_in_order_of_their_names(pets: Path):
    dataset = train(pets)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.labels.dtype == np.int32
    assert dataset.name == "pets"
    order = ["cat/deep/deeper/c.webp", "cat/x.y.Tiff", "cat/é ü.PNG", "dog/a.JPG", "dog/b.png"]
    assert [file.name for file in walk(pets).files] == order
    expected = np.stack([read_picture(pets / name, InputSpec((6, 9, 3))) for name in order])
    np.testing.assert_array_equal(dataset.images[:], expected)


def test_undivided_folder_has_only_a_training_split(pets: Path):
    source = opened(pets)
    assert (source.name, source.split_names) == ("pets", ("train",))
    with pytest.raises(InputError, match=r"data\.test_split: got 'test'; expected one of train\."):
        source.load("test", "data.test_split")


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "test"), ("train", "test")),
        (("Training", "VAL", "testing"), ("train", "validation", "test")),
        (("train", "valid"), ("train", "validation")),
        (("validation", "train"), ("train", "validation")),
        (("TRAIN",), ("train",)),
    ],
)
def test_folders_named_like_splits_are_splits(tmp_path: Path, folders: tuple[str, ...], splits: tuple[str, ...]):
    for count, folder in enumerate(folders, 2):
        pictures(tmp_path / "pets", *(f"{folder}/{name}/{i}.png" for name in ("cat", "dog") for i in range(count)))
    source = opened(tmp_path / "pets")
    assert source.split_names == splits
    for split in splits:
        dataset = source.load(split, "data.split")
        assert dataset.class_names == ("cat", "dog")
        assert dataset.name == ("pets" if len(splits) == 1 else f"pets {split}")
    sizes = {len(source.load(split, "data.split")) for split in splits}
    assert sizes == {2 * count for count, _ in enumerate(folders, 2)}


def test_folders_without_images_and_hidden_ones_do_not_count(tmp_path: Path):
    root = pictures(tmp_path / "pets", "train/a/1.png", "train/b/1.png", "test/a/1.png")
    pictures(root, ".thumbnails/x.png", "__MACOSX/train/a/1.png", "train/a/._1.png", "train/.git/a.png")
    (root / "documents").mkdir()
    (root / "documents" / "read me.txt").touch()
    (root / "train" / "a" / "Thumbs.db").touch()
    source = opened(root)
    assert source.split_names == ("train", "test")
    assert [file.name for file in walk(root).files] == ["test/a/1.png", "train/a/1.png", "train/b/1.png"]


def test_folders_without_images_are_named(pets: Path):
    (pets / "rabbit").mkdir()
    (pets / "bird").mkdir()
    (pets / "bird" / "notes.txt").touch()
    messages: list[str] = []
    assert train(pets, messages).class_names == ("cat", "dog")
    assert messages[:2] == [
        "pets: passed over 1 .txt (bird/notes.txt)",
        f"{pets}: no images in bird, rabbit, left out",
    ]


def test_test_split_may_lack_classes_but_not_have_its_own(tmp_path: Path):
    root = pictures(tmp_path / "pets", "train/a/1.png", "train/b/1.png", "test/b/1.png", "val/b/1.png", "val/c/1.png")
    source = opened(root)
    message = (
        r"pets validation: got classes that pets train lacks \(c\); expected those of pets train \(a, b\)\. Rename"
    )
    config = DataConfig(path=root, image_size="4x4")
    with pytest.raises(InputError, match=message):
        load_splits(config, 0, lambda text: None)
    assert source.load("test", "data.test_split").class_names == ("b",)
    test = load_splits(replace(config, validation_split="train"), 0, lambda text: None).test
    assert test is not None
    assert (test.class_names, test.labels.tolist()) == (("a", "b"), [1])


def test_names_like_splits_are_classes_beside_others_and_that_is_told(tmp_path: Path):
    root = pictures(tmp_path / "signs", "train/1.png", "tram/1.png")
    messages: list[str] = []
    assert train(root, messages).class_names == ("train", "tram")
    assert messages[0] == f"{root}: train are taken for classes and not for splits, because of tram beside them"


def test_test_folder_without_class_folders_is_left_out_and_that_is_told(tmp_path: Path):
    root = pictures(tmp_path / "pets", "train/a/1.png", "train/b/1.png", "test/1.png")
    messages: list[str] = []
    assert opened(root, messages).split_names == ("train",)
    assert messages == [f"{root / 'test'}: left out 1 image in no class folders, so that there is no such split"]


def test_images_beside_the_class_folders_are_left_out_and_that_is_told(pets: Path):
    pictures(pets, "loose.png", "more.png")
    messages: list[str] = []
    assert len(train(pets, messages)) == 5
    assert messages[0] == f"{pets}: left out 2 images beside the class folders, loose.png first"


def test_images_without_folders_are_refused_with_the_layout(tmp_path: Path):
    root = pictures(tmp_path / "pets", "1.png", "2.png")
    rule = r"data\.path: got .*pets with 2 images and no folders of them; expected one folder a class, like pets/cat/1"
    with pytest.raises(InputError, match=rule):
        opened(root)


@pytest.mark.parametrize("names", [("train/1.png",), ("train/1.png", "test/2.png"), ("test/1.png", "val/1.png")])
def test_splits_without_class_folders_are_refused_with_the_layout(tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(
        InputError, match=r"data\.path: got .*no (folders of them|class folders); expected one folder a"
    ):
        opened(pictures(tmp_path / "pets", *names))


def test_folder_without_any_image_is_refused_with_the_layout(tmp_path: Path):
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"data\.path: got .*pets with no images; expected .*\.jpg"):
        opened(tmp_path / "pets")


def test_two_folders_for_one_split_are_refused(tmp_path: Path):
    root = pictures(tmp_path / "pets", "train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png")
    with pytest.raises(InputError, match=r"got val and valid in .*; expected one folder for the validation split"):
        opened(root)


@pytest.mark.parametrize("top", ["", "train/"])
def test_single_class_folder_is_refused_with_the_folder_that_may_be_meant(tmp_path: Path, top: str):
    root = pictures(tmp_path / "unpacked", f"{top}flowers/rose/1.png", f"{top}flowers/tulip/1.png")
    message = rf"1 class folder, flowers; expected at least 2\. .*set --data\.path .*unpacked/{top}flowers\."
    with pytest.raises(InputError, match=message):
        opened(root)


def test_single_class_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"with 1 class folder, rose; expected at least 2\. Add other classes\."):
        opened(pictures(tmp_path / "flowers", "rose/1.png"))


@pytest.mark.parametrize(
    "names",
    [
        ("train", "validate", "test"), ("train", "dev", "test"), ("train", "valid", "holdout"),
        ("Train", "eval", "Test Set"), ("training_set", "validation-set", "test_set"),
        ("trainset", "valset", "testset"),
        ("seg_train", "seg_val", "seg_test"), ("train2017", "val2017", "test2017"), ("trn", "val", "hold-out"),
        ("TrainImages", "ValImages", "TestImages"),
    ],
)  # fmt: skip
def test_splits_are_known_by_their_usual_names_and_that_is_told(tmp_path: Path, names: tuple[str, ...]):
    for count, name in enumerate(names, 1):
        pictures(tmp_path / "pets", *(f"{name}/{pet}/{i}.png" for pet in ("cat", "dog") for i in range(count)))
    messages: list[str] = []
    source = opened(tmp_path / "pets", messages)
    sizes = {split: sum(map(len, classes.values())) for split, classes in source.splits.items()}
    assert sizes == {"train": 2, "validation": 4, "test": 6}
    assert tuple(source.splits["train"]) == ("cat", "dog")
    odd = [
        name for name in names if name in ("validate", "dev", "eval", "holdout", "hold-out", "trn") or "seg_" in name
    ]
    assert all(f"{name} as " in messages[0] for name in odd) if odd else True


@pytest.mark.parametrize("names", [("bullet train", "toy train"), ("steam_train", "test tube"), ("valid", "invalid")])
def test_names_that_only_hold_the_word_of_a_split_are_classes(tmp_path: Path, names: tuple[str, ...]):
    root = pictures(tmp_path / "things", *(f"{name}/1.png" for name in names))
    assert tuple(opened(root).splits["train"]) == tuple(sorted(names))


def test_doubled_folders_of_splits_are_read_and_the_unlabelled_one_is_left_out(tmp_path: Path):
    pairs = (
        ("seg_train", "forest/1.png"),
        ("seg_train", "sea/1.png"),
        ("seg_test", "forest/2.png"),
        ("seg_test", "sea/2.png"),
    )
    root = pictures(
        tmp_path / "intel", *(f"{split}/{split}/{name}" for split, name in pairs), "seg_pred/seg_pred/3.png"
    )
    messages: list[str] = []
    source = opened(root, messages)
    assert (source.split_names, tuple(source.splits["train"])) == (("train", "test"), ("forest", "sea"))
    left_out = f"{root / 'seg_pred' / 'seg_pred'}: left out 1 image in no class folders, so that there is no such split"
    assert messages == [left_out, f"{root}: read seg_train/seg_train as train, seg_test/seg_test as test"]
    assert source.load("test", "data.test_split").labels.tolist() == [0, 1]


def test_copy_of_the_same_classes_is_left_out_and_that_is_told(tmp_path: Path):
    root = pictures(tmp_path / "cell_images", "Parasitized/1.png", "Parasitized/2.png", "Uninfected/1.png")
    shutil.copytree(root, tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", root / "cell_images")
    messages: list[str] = []
    source = opened(root, messages)
    assert tuple(source.splits["train"]) == ("Parasitized", "Uninfected")
    assert len(source.load("train", "data.split")) == 3
    inner = root / "cell_images"
    assert messages[0] == f"{inner}: left out 3 images, a copy of Parasitized, Uninfected beside it"
    picture(inner / "Uninfected" / "other.png")
    with pytest.raises(
        InputError, match=r"cell_images with other images; expected each class once\. Set --data\.path .*"
    ):
        opened(root)


@pytest.mark.parametrize("test", [("test/1.png", "test/2.png"), ("test/test/1.png",), ("test/unknown/1.png",)])
@pytest.mark.parametrize("train_top", ["", "train/"])
def test_unlabelled_test_folder_is_no_class_and_evaluating_it_says_why(tmp_path: Path, test: Any, train_top: str):
    root = pictures(tmp_path / "pets", f"{train_top}cat/1.png", f"{train_top}dog/1.png", *test)
    messages: list[str] = []
    source = opened(root, messages)
    assert (source.split_names, tuple(source.splits["train"])) == (("train",), ("cat", "dog"))
    assert re.fullmatch(rf"{root}/test.*: left out {len(test)} images? in no class folders, so .*", messages[0])
    with pytest.raises(
        InputError, match=r"data\.split: got 'test' .*whose images lie in no class folders; .*predict them"
    ):
        source.load("test", "data.split")


def test_split_beside_classes_is_refused_with_the_way_to_either(tmp_path: Path):
    root = pictures(tmp_path / "pets", "cat/1.png", "dog/1.png", "test/cat/2.png", "test/dog/2.png")
    message = r"pets with test, which holds folders of its own, beside cat, dog; .* in it\. Move the others"
    with pytest.raises(InputError, match=message):  # and not the advice to train on what is there to test
        opened(root)
    (root / "test").rename(root / "train")
    with pytest.raises(InputError, match=r"Set --data\.path .*pets/train, or move the others"):
        opened(root)


def test_other_folders_beside_several_splits_are_left_out_and_that_is_told(tmp_path: Path):
    names = [f"{split}/{pet}/1.png" for split in ("train", "test") for pet in ("cat", "dog")]
    root = pictures(tmp_path / "pets", *names, "samples/1.png", "samples/2.png")
    messages: list[str] = []
    assert opened(root, messages).split_names == ("train", "test")
    assert messages == [f"{root / 'samples'}: left out 2 images beside the folders of splits"]


def test_splits_within_the_classes_are_refused_with_a_move(tmp_path: Path):
    root = pictures(
        tmp_path / "pets", *(f"{pet}/{split}/1.png" for pet in ("cat", "dog") for split in ("test", "train"))
    )
    message = r"with test, train in each of cat, dog; expected the splits above .* Move .*cat/train to .*train/cat"
    with pytest.raises(InputError, match=message):
        opened(root)


@pytest.mark.parametrize("around", [("archive",), ("fold_0", "fold_1")])
def test_whole_datasets_within_a_folder_are_refused_with_their_path(tmp_path: Path, around: tuple[str, ...]):
    inside = [f"{split}/{pet}/1.png" for split in ("train", "val") for pet in ("cat", "dog")]
    root = pictures(tmp_path / "pets", *(f"{folder}/{name}" for folder in around for name in inside))
    with pytest.raises(InputError, match=rf"with train, val in .*Set --data\.path .*pets/{around[0]}[.,]"):
        opened(root)
    assert opened(root / around[0]).split_names == ("train", "validation")


def test_folds_of_a_cross_validation_are_no_classes(tmp_path: Path):
    names = [f"fold{k}/{pet}/1.png" for k in (1, 2, 3) for pet in ("cat", "dog")]
    with pytest.raises(InputError, match=r"with fold1, fold2, fold3, and cat, dog in each; .* one train"):
        opened(pictures(tmp_path / "pets", *names))
    # Folds of paper, say, in which pictures lie right away, are.
    assert train(pictures(tmp_path / "paper", "fold1/1.png", "fold2/1.png")).class_names == ("fold1", "fold2")


@pytest.mark.parametrize("name", ["trainval", "train_val", "TrainVal"])
def test_training_and_validation_in_one_folder_are_training(tmp_path: Path, name: str):
    names = [f"{split}/{pet}/1.png" for split in (name, "test") for pet in ("cat", "dog")]
    assert opened(pictures(tmp_path / "pets", *names)).split_names == ("train", "test")


# Names, links and what cannot be read


def test_names_are_composed_so_that_systems_agree(tmp_path: Path):
    names = ["é", "z", "ä"]
    for form in ("NFC", "NFD"):
        pictures(tmp_path / form / "letters", *(f"{unicodedata.normalize(form, name)}/ü.png" for name in names))
    one, other = (opened(tmp_path / form / "letters") for form in ("NFC", "NFD"))
    assert one.load("train", "f").class_names == other.load("train", "f").class_names == ("z", "ä", "é")
    assert [f.name for f in one.splits["train"]["é"]] == [f.name for f in other.splits["train"]["é"]] == ["é/ü.png"]
    assert len(other.load("train", "data.split")) == 3


def test_name_of_data_can_be_shown_whatever_the_folder_is_called():
    names = {b"/a/flowers": "flowers", "/a/b ü 猫".encode(): "b ü 猫", b"/a/caf\xe9\n": "caf��", b"/": "root"}
    assert {path: name_of(Path(os.fsdecode(path))) for path in names} == names


def test_linked_folders_are_followed_and_loops_are_cut(pets: Path, tmp_path: Path):
    pictures(tmp_path / "elsewhere", "1.png", "2.png")
    (pets / "fox").symlink_to(tmp_path / "elsewhere")
    (pets / "cat" / "loop").symlink_to(pets)
    (pets / "cat" / "self").symlink_to(pets / "cat")
    (pets / "dog" / "link.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    names = [file.name for file in walk(pets).files]
    assert [name for name in names if name.startswith("fox")] == ["fox/1.png", "fox/2.png"]
    assert "dog/link.png" in names
    assert not [name for name in names if "loop" in name or "self" in name]


def test_link_to_nothing_is_a_bad_file(pets: Path):
    (pets / "dog" / "gone.png").symlink_to(pets / "nowhere.png")
    with pytest.raises(InputError, match=r"1 unreadable file of 6; .*\n  .*dog/gone\.png: No such file or directory"):
        train(pets)


def test_folder_named_like_a_picture_is_a_folder(pets: Path):
    picture(pets / "cat" / "x.jpg" / "inside.png")
    assert "cat/x.jpg/inside.png" in [file.name for file in walk(pets).files]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission_is_refused(pets: Path):
    (pets / "cat").chmod(0)
    with pytest.raises(InputError, match=r"pets/cat: got Permission denied; expected a folder that can be read"):
        opened(pets)
    (pets / "cat").chmod(0o700)


# Decoding


def test_files_become_rgb_unless_the_config_says_otherwise(tmp_path: Path):
    for name, mode in (("a/1.png", "L"), ("a/2.png", "RGBA"), ("b/1.gif", "P"), ("b/2.jpg", "CMYK"), ("b/3.png", "1")):
        picture(tmp_path / "mixed" / name, mode=mode)
    assert train(tmp_path / "mixed").input_shape == (6, 9, 3)
    assert train(tmp_path / "mixed", color="grayscale").input_shape == (6, 9, 1)
    assert train(tmp_path / "mixed", image_size="4x5").input_shape == (4, 5, 3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty JPEGs and PNGs of many sizes."""
    root = tmp_path_factory.mktemp("data") / "photos"
    for i in range(60):
        picture(root / f"class {i % 3}" / f"{i:02d}{('.jpg', '.png')[i % 2]}", *DRAW.integers(20, 150, 2))
    return root


@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("color", [None, "grayscale"])
@pytest.mark.parametrize("threads", [1, 3, 16])
def test_files_decoded_by_threads_are_those_read_one_by_one(
    photos: Path, monkeypatch: pytest.MonkeyPatch, rule: Any, color: Any, threads: int
):
    monkeypatch.setattr(files_module, "num_cores", lambda: threads)
    monkeypatch.setattr(files_module, "CHUNK_FILES", 7)
    found = [file.path for file in walk(photos).files]
    config = DataConfig(image_size="24x32", resize=rule, color=color)
    decoded = decode_files(found, list(range(60)), tuple(map(str, range(60))), config)
    images, labels, hashes = (np.concatenate(parts) for parts in zip(*decoded.batches, strict=True))
    spec = InputSpec((24, 32, 1 if color else 3), resize=rule)
    np.testing.assert_array_equal(images, np.stack([read_picture(path, spec) for path in found]))
    assert labels.tolist() == list(range(60))
    np.testing.assert_array_equal(hashes, image_hashes(images))
    assert (decoded.num_examples, decoded.input_shape, decoded.skipped) == (60, spec.shape, [])


def test_only_a_few_chunks_are_decoded_ahead(photos: Path, monkeypatch: pytest.MonkeyPatch):
    started: list[str] = []
    decode_chunk = files_module._decode_chunk
    monkeypatch.setattr(files_module, "num_cores", lambda: 2)
    monkeypatch.setattr(files_module, "CHUNK_FILES", 2)
    monkeypatch.setattr(files_module, "_decode_chunk", lambda f, *rest: started.append(f[0]) or decode_chunk(f, *rest))
    found = [file.path for file in walk(photos).files]
    batches = iter(decode_files(found, [0] * 60, ("a",), DataConfig(image_size="4x4")).batches)
    next(batches)
    assert len(started) <= 4
    batches.close()  # type: ignore[attr-defined]
    assert len(started) <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_images_of_several_sizes_are_refused_with_the_most_frequent(tmp_path: Path):
    sizes = [(4, 5)] * 3 + [(5, 4)] * 2 + [(8, 8)] * 4 + [(9, 9)]
    for i, size in enumerate(sizes):
        picture(tmp_path / "mixed" / "ab"[i % 2] / f"{i}.png", *size)
    message = (
        r"data\.path: got images of 4 sizes: 8×8 \(4\), 4×5 \(3\), 5×4 \(2\), 1 more; expected one size .*"
        r"--data\.image-size 180x180"
    )
    with pytest.raises(InputError, match=message):
        train(tmp_path / "mixed")
    assert len(train(tmp_path / "mixed", image_size="4x4")) == 10


def spoil(root: Path) -> dict[str, str]:
    """Bad files of each kind, and the reason that each is refused with."""
    whole = picture(root / "a" / "whole.jpg", 60, 60).read_bytes()
    (root / "b" / "empty.jpg").parent.mkdir(parents=True)
    (root / "b" / "empty.jpg").touch()
    (root / "a" / "text.jpg").write_text("not a picture")
    (root / "b" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    picture(root / "b" / "whole.png", 60, 60)
    return {
        "a/text.jpg": "a file that is not an image",
        "b/empty.jpg": "an empty file",
        "b/half.jpg": "image file is tru",
    }


def test_bad_files_stop_a_run_after_all_are_found(tmp_path: Path):
    reasons = spoil(tmp_path / "spoilt")
    with pytest.raises(InputError) as raised:
        train(tmp_path / "spoilt")
    first, *lines = str(raised.value).splitlines()
    assert first.startswith("data.path: got 3 unreadable files of 5; expected readable, complete images. Repair or")
    assert "--data.on-bad-file skip" in first
    for line, (name, reason) in zip(lines, reasons.items(), strict=True):
        assert line.startswith(f"  {tmp_path}/spoilt/{name}: {reason}")


@pytest.mark.parametrize("image_size", [None, "60x60", "20x20"])
def test_bad_files_are_skipped_and_named_where_the_config_says_so(tmp_path: Path, image_size: str | None):
    reasons = spoil(tmp_path / "spoilt")
    dataset = train(tmp_path / "spoilt", on_bad_file="skip", image_size=image_size)
    assert dataset.labels.tolist() == [0, 1]
    assert len(dataset.skipped) == 3
    for line, (name, reason) in zip(dataset.skipped, reasons.items(), strict=True):
        assert line.startswith(f"{tmp_path}/spoilt/{name}: {reason}")
    again = train(tmp_path / "spoilt", on_bad_file="skip", image_size=image_size)  # from the cache
    assert again.skipped == dataset.skipped


@pytest.mark.parametrize("rule", ["stop", "skip"])
@pytest.mark.parametrize("image_size", [None, "8x8"])
def test_only_bad_files_are_refused_and_the_first_ten_named(tmp_path: Path, rule: Any, image_size: str | None):
    for i in range(14):
        (tmp_path / "bad" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / "ab"[i % 2] / f"{i:02d}.png").touch()
    with pytest.raises(
        InputError, match=r"data\.path: got 14 unreadable files, which is all; expected images"
    ) as raised:
        train(tmp_path / "bad", on_bad_file=rule, image_size=image_size)
    lines = str(raised.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  … and 4 more"


def test_transparent_files_are_laid_over_the_background(tmp_path: Path):
    for name in "ab":
        (tmp_path / "clear" / name).mkdir(parents=True)
        Image.new("RGBA", (3, 3), (0, 0, 0, 0)).save(tmp_path / "clear" / name / "1.png")
    assert np.unique(train(tmp_path / "clear").images[:]).tolist() == [0]
    assert train(tmp_path / "clear", background=(1, 2, 3)).images[0][0, 0].tolist() == [1, 2, 3]


# The cache


def test_second_start_decodes_nothing_and_is_equal(pets: Path, monkeypatch: pytest.MonkeyPatch):
    messages: list[str] = []
    first = train(pets, messages)
    assert messages == ["decoding pets: 5 images, once"]
    monkeypatch.setattr(files_module, "decode_files", None)
    again = train(pets, messages)
    assert len(messages) == 1
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.images[:], first.images[:])


def test_decoding_is_the_same_in_every_run(photos: Path, tmp_path: Path):
    runs = [train(photos, image_size="16x16", cache_dir=tmp_path / str(i)) for i in range(2)]
    assert runs[0].fingerprint == runs[1].fingerprint


def test_files_are_decoded_anew_when_one_or_a_setting_changes(pets: Path):
    messages: list[str] = []
    train(pets, messages)
    changes: list[dict[str, Any]] = [
        {"image_size": "5x5"},
        {"image_size": "5x5", "resize": "pad"},
        {"color": "grayscale"},
        {"background": (1, 1, 1)},
        {"on_bad_file": "skip"},
    ]
    for count, change in enumerate(changes, 2):
        train(pets, messages, **change)
        assert len(messages) == count
    os.utime(pets / "dog" / "b.png", ns=(1, 1))
    train(pets, messages)
    (pets / "dog" / "b.png").rename(pets / "dog" / "c.png")
    train(pets, messages)
    picture(pets / "dog" / "d.png")
    train(pets, messages)
    assert len(messages) == len(changes) + 4
    train(pets, messages)
    assert len(messages) == len(changes) + 4


def test_bad_files_leave_no_cache_entry(tmp_path: Path):
    spoil(tmp_path / "spoilt")
    with pytest.raises(InputError):
        train(tmp_path / "spoilt")
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []


@pytest.mark.parametrize("pattern", ["{}.{}.jpg", "{}_{:03}.JPG", "{} ({}).png"])
def test_pictures_with_classes_in_their_names_are_refused_and_the_command_that_is_named_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
):
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    for name in ("cat", "dog"):
        for k in range(3):
            picture = Image.new("RGB", (4, 4), (k, 0, len(name)))
            picture.save(folder / pattern.format(name, k), format="PNG")
    (folder / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"with their classes \(cat, dog\), run in that folder: python -c") as told:
        train(tmp_path / "data")
    command = str(told.value).split("run in that folder: ")[1].split(" Then set --data.path ")[0]
    path = Path(str(told.value).split(" Then set --data.path ")[1].rstrip("."))
    words = shlex.split(command)
    assert (words[:2], len(words)) == (["python", "-c"], 3)
    monkeypatch.chdir(folder)
    exec(compile(words[2], "command", "exec"), {})
    found = load_splits(DataConfig(path=path, validation_fraction=0), 0, lambda text: None).train
    assert (found.class_names, len(found)) == (("cat", "dog"), 6)


def test_numbered_pictures_of_a_camera_are_no_classes(tmp_path: Path):
    for k in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / f"IMG_{k:04}.jpg")
    with pytest.raises(InputError, match=r"no folders of them; .*Sort the files") as told:
        train(tmp_path)
    assert "python -c" not in str(told.value)


def test_a_folder_under_shorter_is_read_as_its_pictures_are_predicted(tmp_path: Path):
    levels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(levels).save(tmp_path / name / "one.png")
    how = {"image_size": "16x16", "resize": "shorter", "crop_share": 0.8, "interpolation": "bicubic"}
    config = DataConfig(path=tmp_path, validation_fraction=0, **how)
    dataset = load_splits(config, 0, print).train
    whole = Image.fromarray(levels).resize((20, 26), Image.Resampling.BICUBIC)
    expected = np.asarray(whole)[5:21, 2:18]
    np.testing.assert_array_equal(dataset.images[0], expected)
    spec = input_spec(config, dataset)
    assert (spec.resize, spec.crop_share) == ("shorter", 0.8)
    np.testing.assert_array_equal(read_picture(str(tmp_path / "a" / "one.png"), spec), expected)
    assert under_contract(DataConfig(path=tmp_path), spec).crop_share == 0.8


def test_crop_share_needs_shorter_and_a_share():
    for options in ({"crop_share": 0.8}, {"crop_share": 1.5, "resize": "shorter"}, {"crop_share": 0.0}):
        with pytest.raises(InputError, match=r"data\.crop_share"):
            DataConfig(**options)
