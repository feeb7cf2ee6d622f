"""One walk: which files below a folder are pictures, and what is passed over, counted and named."""

import os
import subprocess
import unicodedata
from pathlib import Path

import pytest

from engine.data.sources.walk import picture_files, walk
from engine.errors import InputError


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names_below(root: Path, follow_links: bool = True) -> list[str]:
    return [file.name for file in walk(root, follow_links).files]


JUNK = (
    ".ipynb_checkpoints/a-checkpoint.png", "cat/.ipynb_checkpoints/a.png", ".Trash-1000/files/b.png", "cat/._a.png",
    "__MACOSX/cat/a.png", "@eaDir/cat/SYNOPHOTO_THUMB_M.png", "$RECYCLE.BIN/R1.png", "$Recycle.Bin2/.a.png",
    "System Volume Information/x.png", "lost+found/1.png", "cat/.DS_Store", "cat/Thumbs.db", "cat/desktop.ini",
    "#recycle/a.png",
)  # fmt: skip


def test_hidden_and_system_files_are_passed_over_by_training_and_prediction_alike(tmp_path: Path):
    root = touched(tmp_path / "pets", "cat/a.png", *JUNK)
    found, said = walk(root), list[str]()
    assert [file.name for file in found.files] == ["cat/a.png"]
    assert found.passed.counts == {"hidden or system": 14}
    assert picture_files([root], said.append) == [str(root / "cat" / "a.png")]
    assert said == [f"{root}: passed over 14 hidden or system (#recycle first)"]


def test_a_folder_that_is_named_is_read_even_if_it_is_hidden(tmp_path: Path):
    root = touched(tmp_path / ".hidden", "a.png")
    assert names_below(root) == ["a.png"]


def test_other_files_are_counted_by_their_suffixes_and_named_in_one_line(tmp_path: Path):
    names = [f"a/IMG_{i}.MP4" for i in range(3)] + [
        "a/1.mp4",
        "b/x.psd",
        "b/twitter.jpg_large",
        "b/none",
        "b/\x1b[2J.tx\x07",
    ]
    root = touched(tmp_path, "a/1.PNG", "a/2.JpEg", *names)
    passed = walk(root).passed
    counts = {".mp4": 4, ".psd": 1, ".jpg_large": 1, "without a suffix": 1, "of other suffixes": 1}
    assert passed.counts == counts
    assert passed.text().startswith("4 .mp4 (a/1.mp4 first), 1 .jpg_large (b/twitter.jpg_large), 1 .psd")
    assert passed.text().isprintable()
    assert names_below(root) == ["a/1.PNG", "a/2.JpEg"]


def test_many_kinds_still_make_one_short_line(tmp_path: Path):
    root = touched(tmp_path, "1.png", *(f"{i:02}{'x' * 100}.{i:03}" for i in range(30)))
    text = walk(root).passed.text()
    assert text.endswith("22 of other kinds")
    assert len(text) < 900


def test_linked_folders_are_read_once_under_their_own_name(tmp_path: Path):
    root = touched(tmp_path / "pets", "dog/own/1.png", "dog/own/2.png", "elk/3.png")
    touched(tmp_path / "elsewhere", "4.png")
    (root / "ant").symlink_to(root / "dog" / "own")  # which the walk meets first
    (root / "elk" / "again").symlink_to(root / "dog")
    (root / "elk" / "loop").symlink_to(root)
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    (root / "gnu").symlink_to(tmp_path / "elsewhere")
    found = walk(root)
    assert [file.name for file in found.files] == ["dog/own/1.png", "dog/own/2.png", "elk/3.png", "fox/4.png"]
    assert found.passed.counts == {"linked folders that are read elsewhere": 4}
    assert "(ant first)" in found.passed.text()


def test_split_that_is_a_link_to_another_is_read(tmp_path: Path):
    root = touched(tmp_path / "pets", "train/cat/1.png", "test/cat/2.png")
    (root / "val").symlink_to("test")
    assert names_below(root) == ["test/cat/2.png", "train/cat/1.png", "val/cat/2.png"]


def test_links_among_many_folders_are_walked_in_bounded_time(tmp_path: Path):
    for i in range(30):
        touched(tmp_path, f"{i:02}/1.png")
    for i in range(30):
        for k in range(30):
            (tmp_path / f"{i:02}" / f"to {k:02}").symlink_to(tmp_path / f"{k:02}")
    found = walk(tmp_path)
    assert len(found.files) == 30
    assert found.passed.counts == {"linked folders that are read elsewhere": 900}


def test_links_are_not_followed_where_that_is_off(tmp_path: Path):
    root = touched(tmp_path / "pets", "cat/1.png")
    touched(tmp_path / "elsewhere", "2.png", "3.png")
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "link.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    found = walk(root, follow_links=False)
    assert [file.name for file in found.files] == ["cat/1.png", "cat/link.png"]
    assert found.passed.text() == "1 linked folders (data.follow-links off) (fox)"


def test_links_to_nothing_are_named_and_pipes_are_not_waited_for(tmp_path: Path):
    root = touched(tmp_path, "a/1.png")
    (root / "a" / "gone.png").symlink_to("nowhere.png")  # decoding names it
    (root / "fox").symlink_to("nowhere")
    (root / "self").symlink_to("self")
    os.mkfifo(root / "a" / "pipe.png")
    found = walk(root)
    assert [file.name for file in found.files] == ["a/1.png", "a/gone.png", "a/pipe.png"]
    assert found.passed.counts == {"links to nothing": 2}


def test_thousand_nested_folders_are_walked(tmp_path: Path):
    name = "/".join(["d"] * 1000)
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("1.png", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    try:
        assert names_below(tmp_path) == [f"{name}/1.png"]
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # too deep for Python's own


def test_names_are_composed_but_paths_are_as_they_lie_there(tmp_path: Path):
    decomposed = unicodedata.normalize("NFD", "é.png")
    (file,) = walk(touched(tmp_path, decomposed)).files
    assert file.name == "é.png"
    assert file.path == str(tmp_path / decomposed)


def test_working_directory_gives_plain_names(in_tmp: Path):
    touched(in_tmp, "b/1.png", "a.png")
    assert picture_files(["."]) == ["a.png", "b/1.png"]


def test_prediction_in_python_warns_of_what_is_passed_over(tmp_path: Path):
    with pytest.warns(UserWarning, match=r"passed over 1 \.mp4 \(b\.mp4\)"):
        picture_files([touched(tmp_path, "a.png", "b.mp4")])


def test_files_of_a_folder_are_its_images_in_order_of_their_names(tmp_path: Path):
    names = ["b.png", "a.JPG", "sub/c.webp", "sub/deeper/a.tiff"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [Path(path).relative_to(tmp_path).as_posix() for path in picture_files([tmp_path])]
    assert found == ["a.JPG", "b.png", "sub/c.webp", "sub/deeper/a.tiff"]


def test_files_named_are_kept_in_the_order_given(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in.png").touch()
    files = picture_files(["z.bin", str(tmp_path / "folder"), Path("a.png")])
    assert files == ["z.bin", str(tmp_path / "folder" / "in.png"), "a.png"]


def test_folder_without_images_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    message = r"got a folder with 1 \.txt \(notes\.txt\); expected image files below it \(.*\.png.*\)"
    with pytest.raises(InputError, match=message):
        picture_files([tmp_path])
