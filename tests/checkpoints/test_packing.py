"""Packed runs: one file that opens like the directory it was made of, and whose content can do no harm."""

import io
import shutil
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import engine
from engine.checkpoints import packing
from engine.checkpoints.packing import opened, pack, unpack
from engine.checkpoints.steps import check_step, choose_step, find_steps, read_record
from engine.commands import augment as augment_module
from engine.commands import evaluate as evaluate_module
from engine.commands import plan as plan_module
from engine.commands import predict as predict_module
from engine.data.decoded.dataset import Splits
from engine.host.clock import Clock
from engine.report.progress import Silent
from engine.runs.loop import train
from tests.commands.test_data import command, mistake
from tests.conftest import TINY, make_dataset

STORED = Path(__file__).parents[1] / "checkpoints"
IMAGES = make_dataset(5, 3).images
SPLITS = Splits(make_dataset(), make_dataset(50, 1))


def config_of(epochs: int) -> engine.RunConfig:
    return engine.RunConfig("tiny", TINY, train=engine.TrainConfig(epochs, 64))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of one epoch, which no test changes."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    directory.mkdir()
    train(config_of(1), SPLITS, directory, Clock(), Silent())
    return directory


@pytest.fixture(scope="module")
def packed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("packed") / "tiny.engine"
    pack(run, file)
    return file


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever a test opens, or fails to: the temporary directory is empty afterwards."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert list(place.iterdir()) == []


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_packed_run_answers_as_its_directory_does(run, packed):
    ours, theirs = engine.restore(packed), engine.restore(run)
    np.testing.assert_array_equal(ours.outputs(IMAGES), theirs.outputs(IMAGES))
    assert ours.record == theirs.record
    assert engine.restore(str(packed), step="last").record.step == choose_step(run, "last")


def test_packed_ensemble_opens_whole_by_member_and_joined(tmp_path):
    packed, images = STORED / "version_2_ensemble.engine", np.load(STORED / "version_2_ensemble.npz")["images"]
    directory = tmp_path / "two"
    unpack(packed, directory)
    for member in (None, 0, 1):
        ours = engine.restore(packed, member=member).outputs(images)
        np.testing.assert_array_equal(ours, engine.restore(directory, member=member).outputs(images))
    joined = engine.join([packed, STORED / "version_2.engine"])
    assert len(joined.members) == 3


def test_content_is_what_zipfile_itself_finds_in_it(run, packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "theirs")
    unpack(packed, tmp_path / "ours")
    assert content(tmp_path / "ours") == content(tmp_path / "theirs")
    left_out = {name for name in content(run) if name not in content(tmp_path / "ours")}
    assert {Path(name).name for name in left_out} == {"commit_success.txt"}
    same = {name for name, value in content(tmp_path / "ours").items() if content(run)[name] == value}
    assert {Path(name).name for name in content(tmp_path / "ours").keys() - same} == {"B2SUMS"}


def test_packed_checkpoint_tells_nothing_of_the_place_where_it_was_made(run, packed):
    places = (str(run).encode(), str(run.parent).encode())
    with zipfile.ZipFile(packed) as archive:
        for name in archive.namelist():
            assert not any(place in archive.read(name) for place in places), name


def test_same_run_packs_to_the_same_bytes_wherever_it_lies(run, packed, tmp_path):
    copied = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy)  # with other dates
    (copied / "notes.txt").write_text("of the user")
    (copied / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir()
    pack(copied, tmp_path / "again.engine")
    assert (tmp_path / "again.engine").read_bytes() == packed.read_bytes()
    pack(packed, tmp_path / "repacked.engine")
    assert (tmp_path / "repacked.engine").read_bytes() == packed.read_bytes()
    pack(run / "checkpoints", tmp_path / "from_inside.engine")
    assert (tmp_path / "from_inside.engine").read_bytes() == packed.read_bytes()


def test_best_and_last_step_are_packed_of_those_there(tmp_path):
    train(config_of(3), SPLITS, tmp_path, Clock(), Silent())
    steps = pack(tmp_path, tmp_path / "all.engine")
    assert steps == sorted({choose_step(tmp_path, "best"), choose_step(tmp_path, "last")})
    with opened(tmp_path / "all.engine") as directory:
        assert find_steps(directory) == steps
        assert [choose_step(directory, which) for which in ("best", "last")] == [
            choose_step(tmp_path, which) for which in ("best", "last")
        ]
    assert pack(tmp_path, tmp_path / "use.engine", inference_only=True) == [choose_step(tmp_path, "best")]


def test_inference_only_leaves_out_what_training_needs_and_stays_whole(run, packed, tmp_path):
    small = tmp_path / "small.engine"
    pack(run, small, inference_only=True)
    assert small.stat().st_size < packed.stat().st_size
    with zipfile.ZipFile(small) as archive:
        assert not [name for name in archive.namelist() if "/optimizer/" in name]
    np.testing.assert_array_equal(engine.restore(small).outputs(IMAGES), engine.restore(run).outputs(IMAGES))
    pack(small, tmp_path / "again.engine")
    unpack(small, tmp_path / "out")
    step = choose_step(tmp_path / "out", "last")
    check_step(tmp_path / "out", step)
    record = read_record(tmp_path / "out", step)
    with pytest.raises(engine.InputError, match="optimizer"):
        train(config_of(2), SPLITS, tmp_path / "out", Clock(), Silent(), record)


def test_unpacked_run_goes_on_to_the_bits_of_the_run_itself(run, packed, tmp_path):
    unpack(packed, tmp_path / "moved")
    shutil.copytree(run, tmp_path / "stayed")
    outputs = []
    for directory in (tmp_path / "moved", tmp_path / "stayed"):
        record = read_record(directory, choose_step(directory, "last"))
        train(config_of(2), SPLITS, directory, Clock(), Silent(), record)
        outputs.append(engine.restore(directory, step="last").outputs(IMAGES))
    np.testing.assert_array_equal(*outputs)


def test_existing_file_is_kept_unless_it_may_be_replaced(run, packed, tmp_path):
    out = tmp_path / "x.engine"
    out.write_text("mine")
    with pytest.raises(engine.InputError, match=r"out: got .*x\.engine, which exists; .* Add --overwrite"):
        pack(run, out)
    assert out.read_text() == "mine"
    pack(run, out, overwrite=True)
    assert out.read_bytes() == packed.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name != "temporary"] == ["x.engine"]


def test_place_that_cannot_take_the_file_is_refused(run, tmp_path):
    (tmp_path / "d.engine").mkdir()
    with pytest.raises(engine.InputError, match=r"expected a name that ends in \.engine\. Name it x\.engine"):
        pack(run, tmp_path / "x.zip")
    with pytest.raises(engine.InputError, match=r"d\.engine, a directory; expected the name of a file"):
        pack(run, tmp_path / "d.engine", overwrite=True)
    with pytest.raises(engine.InputError, match=r"expected a file in a directory that exists.*mkdir -p"):
        pack(run, tmp_path / "gone" / "x.engine")
    with pytest.raises(engine.InputError, match=r"nowhere: got no such directory"):
        pack(tmp_path / "nowhere", tmp_path / "x.engine")
    with pytest.raises(engine.InputError, match=r"out: got .*, which exists; expected a new directory"):
        unpack(STORED / "version_2.engine", tmp_path)
    with pytest.raises(engine.InputError, match=r"file: got .*, a directory; expected a packed run"):
        unpack(run, tmp_path / "out")


def test_damaged_run_is_not_packed_and_leaves_nothing(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "copy")
    file = max((copied / "checkpoints" / "4" / "model").rglob("d/*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(engine.InputError, match=f"{file.name}: got content that is not what was saved"):
        pack(copied, tmp_path / "x.engine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "temporary"]


def test_error_about_what_is_inside_names_the_file(packed):
    with pytest.raises(engine.InputError, match=r"step: got 3; expected one of 4"):
        engine.restore(packed, step=3)
    with zipfile.ZipFile(packed) as archive:
        names = [name for name in archive.namelist() if "record" not in name]
    with pytest.raises(engine.InputError, match=r"^[^:]*bare\.engine: got only half-written"):
        engine.restore(rewritten(packed, packed.with_name("bare.engine"), keep=names))


# What others may send ------------------------------------------------------------------------------------------------


def rewritten(source: Path, target: Path, keep: list[str] | None = None) -> Path:
    """The packed run again, of the entries to keep."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            if keep is None or entry.filename in keep:
                new.writestr(entry, old.read(entry))
    return target


def with_entry(source: Path, target: Path, entry: zipfile.ZipInfo, value: bytes = b"evil") -> Path:
    rewritten(source, target)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(entry, value)
    return target


def assert_refused(file: Path, match: str) -> None:
    """Refused by all that opens, before anything lies outside the temporary directory."""
    around = sorted(file.parent.parent.rglob("*"))
    with pytest.raises(engine.InputError, match=match) as error:
        engine.restore(file)
    assert str(error.value).startswith(f"{file}: got ")
    with pytest.raises(engine.InputError, match=match):
        unpack(file, file.with_name("out"))
    assert sorted(file.parent.parent.rglob("*")) == around


NAMES = [
    "/etc/cron.d/evil", "//host/share", "../evil", "checkpoints/../../evil", "checkpoints/4/../../../evil", "..", ".",
    "checkpoints/4/..", "./config.json", "checkpoints//4/a", "checkpoints/4/./a", "C:/evil", "C:evil", r"C:\evil",
    r"..\evil", r"checkpoints\4\evil", r"\\host\share", "evil.py", "sitecustomize.py", "model.pkl", ".lock", "~",
    "checkpoints/evil", "checkpoints/best/record/metadata", "checkpoints/4", "checkpoints", "damaged", "damaged/a",
    "checkpoints/4/nul", "checkpoints/4/NUL.txt", "checkpoints/4/com1", "checkpoints/4/aux/a", "checkpoints/4/a.",
    "checkpoints/4/a ", "checkpoints/4/.hidden", "checkpoints/4/a\nb", "checkpoints/4/a:b", "checkpoints/4/\u202ecod",
    "checkpoints/4/caf\u00e9", "checkpoints/\u0664/a", "config.json/", "checkpoints/4/model/", "config.json/a", "-rf",
    "checkpoints/4/" + "a/" * 9 + "a", "checkpoints/4/" + "a" * 300, "checkpoints/" + "9" * 30 + "/a",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_entry_with_a_name_that_no_run_has_is_refused(packed, tmp_path, name):
    file = with_entry(packed, tmp_path / "evil.engine", zipfile.ZipInfo(name))
    assert_refused(file, "the entry .*; expected (names of files that a run has|files)")


def test_name_that_ends_before_it_seems_to_is_refused(packed, tmp_path):
    file = with_entry(packed, tmp_path / "evil.engine", zipfile.ZipInfo("skipped.txt+evil"))
    file.write_bytes(file.read_bytes().replace(b"skipped.txt+evil", b"skipped.txt\0evil"))
    assert_refused(file, r"the entry 'skipped.txt\\x00evil'; expected names")


@settings(max_examples=60, deadline=None)
@given(name=st.text(max_size=20) | st.from_regex(r"(checkpoints/)?[0-9./\\:~a-c -]{0,12}", fullmatch=True))
def test_any_name_is_refused_or_stays_inside(name: str):
    with tempfile.TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(f"{place}/x.engine", "w") as archive:
                archive.writestr(zipfile.ZipInfo(name), b"x")
        except (UnicodeError, ValueError, struct.error):
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", place)
            try:
                with opened(Path(place) / "x.engine") as directory:
                    inside = [path for path in directory.rglob("*") if path.is_file()]
                    assert [str(path.relative_to(directory)) for path in inside] == [name]
            except engine.InputError:
                pass
        assert [path.name for path in Path(place).iterdir()] == ["x.engine"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_entry_that_is_no_file_is_refused(packed, tmp_path, kind):
    entry = zipfile.ZipInfo("skipped.txt")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    assert_refused(with_entry(packed, tmp_path / "evil.engine", entry, b"/etc/passwd"), "'skipped.txt'; .*no links")


@pytest.mark.parametrize("attribute", [stat.FILE_ATTRIBUTE_DIRECTORY, stat.FILE_ATTRIBUTE_REPARSE_POINT])
def test_entry_that_windows_would_take_for_a_link_is_refused(packed, tmp_path, attribute):
    entry = zipfile.ZipInfo("skipped.txt")
    entry.create_system, entry.external_attr = 0, attribute
    assert_refused(with_entry(packed, tmp_path / "evil.engine", entry), "'skipped.txt'; .*no links")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["config.json", "checkpoints/4/RECORD/metadata"])
def test_entry_that_is_there_twice_is_refused(packed, tmp_path, name):
    assert_refused(with_entry(packed, tmp_path / "evil.engine", zipfile.ZipInfo(name)), f"'{name}' twice")


def test_file_that_is_also_a_directory_is_refused(packed, tmp_path):
    file = with_entry(packed, tmp_path / "evil.engine", zipfile.ZipInfo("checkpoints/4/model"))
    # a file below it was first, or this one: either way neither is written
    file = with_entry(file, tmp_path / "both.engine", zipfile.ZipInfo("checkpoints/4/model/a"))
    assert_refused(file, "below the file 'checkpoints/4/model'")


def test_compressed_entry_is_refused_as_a_bomb_would_be(packed, tmp_path):
    entry = zipfile.ZipInfo("skipped.txt")
    entry.compress_type = zipfile.ZIP_DEFLATED
    file = with_entry(packed, tmp_path / "evil.engine", entry, bytes(50_000_000))
    assert file.stat().st_size < 1_000_000
    assert_refused(file, "'skipped.txt'; expected entries stored as they are")


def test_encrypted_entry_is_refused(packed, tmp_path):
    file = with_entry(packed, tmp_path / "evil.engine", zipfile.ZipInfo("skipped.txt"))
    data = bytearray(file.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1
    file.write_bytes(data)
    assert_refused(file, "'skipped.txt'; .*nor encrypted")


def test_size_that_is_not_the_true_one_is_refused(packed, tmp_path):
    file = with_entry(packed, tmp_path / "evil.engine", zipfile.ZipInfo("skipped.txt"))
    original = file.read_bytes()
    at = original.rindex(b"PK\1\2")
    for compressed, plain in ((4, 2**31), (2**31, 2**31), (2**31, 4), (0, 0), (3, 3), (5, 5)):
        data = bytearray(original)
        data[at + 20 : at + 28] = struct.pack("<LL", compressed, plain)
        file.write_bytes(data)
        assert_refused(file, "entries that are larger|stored as they are|damaged|cannot be read")


def test_entries_that_share_their_bytes_are_refused(packed, tmp_path):
    """As the bombs of overlapping files do, where one local file is listed many times."""
    value, names = bytes(5_000_000), [f"checkpoints/4/model/{i:02}" for i in range(20)]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(names[0]), value)
        first = archive.infolist()[0]
        for name in names[1:]:
            other = zipfile.ZipInfo(name)
            for field in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(other, field, getattr(first, field))
            archive.filelist.append(other)
            archive.NameToInfo[name] = other
    (tmp_path / "evil.engine").write_bytes(file.getvalue())
    assert_refused(tmp_path / "evil.engine", "entries that are larger together than the file")


@pytest.mark.parametrize("field", ["comment", "extra"])
def test_entry_with_a_note_is_refused_because_entries_can_hide_in_it(packed, tmp_path, field):
    entry = zipfile.ZipInfo("skipped.txt")
    setattr(entry, field, struct.pack("<HH", 0x7075, 40) + bytes(40))
    assert_refused(with_entry(packed, tmp_path / "evil.engine", entry), "'skipped.txt'; expected entries without notes")


def test_entry_of_four_gibibytes_may_say_so(packed, tmp_path):
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(tmp_path / "large.engine", "w") as new:
        for entry in old.infolist():
            with new.open(zipfile.ZipInfo(entry.filename), "w", force_zip64=True) as sink:
                sink.write(old.read(entry))
    assert b"\1\0\x10\0" in (tmp_path / "large.engine").read_bytes()
    assert engine.restore(tmp_path / "large.engine").record == engine.restore(packed).record


def test_too_many_entries_are_refused(packed, monkeypatch):
    monkeypatch.setattr(packing, "MOST_ENTRIES", 5)
    with pytest.raises(engine.InputError, match=r"got \d+ entries; expected at most 5"):
        engine.restore(packed)


def test_any_entry_with_a_wrong_byte_is_named(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        places = {entry.filename: entry.header_offset + 30 + len(entry.filename) for entry in archive.infolist()}
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for name, start in places.items():
        data = bytearray(packed.read_bytes())
        data[start + sizes[name] // 2] ^= 1
        (tmp_path / "hurt.engine").write_bytes(data)
        with pytest.raises(engine.InputError, match=rf"hurt\.engine: got the entry '{name}' damaged \(Bad CRC-32"):
            engine.restore(tmp_path / "hurt.engine")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hurt_file_is_refused_or_gives_the_same_content(data: st.DataObject):
    source = STORED / "version_1.engine"
    value = bytearray(source.read_bytes())
    tail = data.draw(st.booleans())  # the directory of the entries is small, and at the end
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(len(value) - 4000 if tail else 0, len(value) - 1))
        value[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del value[data.draw(st.integers(0, len(value) - 1)) :]
    with tempfile.TemporaryDirectory() as place, opened(source) as expected:
        file = Path(place) / "hurt.engine"
        file.write_bytes(value)
        refusal = f"{file}: got "
        try:
            with opened(file) as directory:
                assert content(directory) == content(expected)
        except engine.InputError as error:
            refusal = str(error)
        assert refusal.startswith(f"{file}: got ")


@pytest.mark.parametrize("value", [b"", b"PK", b"no zip", b"PK\5\6" + bytes(18)], ids=["empty", "cut", "text", "bare"])
def test_file_that_is_no_packed_run_is_refused(tmp_path, value):
    (tmp_path / "x.engine").write_bytes(value)
    with pytest.raises(engine.InputError, match=r"x\.engine: got (a file that cannot be read|no checkpoint)"):
        engine.restore(tmp_path / "x.engine")


# The commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch):
    """Keeps the settings of a command's own process out of the tests'."""
    for module in (augment_module, evaluate_module, plan_module, predict_module):
        monkeypatch.setattr(module, "set_up_process", lambda *_: None)


def test_command_packs_under_the_run_s_name_and_says_what_is_next(run, packed, in_tmp, capsys):
    said = command(capsys, "pack", run)
    assert f"tiny.engine: {packed.stat().st_size / 1e6:,.2f} MB, step 4" in said
    assert "summary tiny.engine" in said
    assert Path("tiny.engine").read_bytes() == packed.read_bytes()
    assert "which exists" in mistake(capsys, "pack", run)
    command(capsys, "pack", run, "--overwrite", "--inference-only")
    assert Path("tiny.engine").stat().st_size < packed.stat().st_size
    command(capsys, "pack", "tiny.engine", "--out", "other.engine")
    said = command(capsys, "unpack", "other.engine")
    assert "other/: the run in other.engine" in said
    assert find_steps(Path("other")) == [4]
    assert "which exists" in mistake(capsys, "unpack", "other.engine")


def test_commands_take_a_packed_run_for_its_directory(run, packed, in_tmp, capsys, same_process):
    Image.fromarray(IMAGES[0, ..., 0]).save("a.png")
    shutil.copy(packed, "tiny.engine")
    shutil.copytree(run, "tiny-engine")
    np.savez("data.npz", images=IMAGES, labels=np.arange(5) % 3)
    for words in (["summary"], ["predict", "a.png"], ["eval", "--data.path", "data.npz", "--data.split", "train"]):
        name, *rest = words
        ours, theirs = command(capsys, name, "tiny.engine", *rest), command(capsys, name, "tiny-engine", *rest)
        assert ours.replace("tiny.engine", "tiny-engine") == theirs
    assert "tiny.engine" in command(capsys, "plan", "tiny.engine")
    assert "rotation" in command(capsys, "augment", "a.png", "--run", "tiny.engine", "--augment.rotation", "9")


def test_commands_say_in_one_line_that_a_packed_run_cannot_be_used(packed, in_tmp, capsys, same_process):
    file = with_entry(packed, in_tmp / "evil.engine", zipfile.ZipInfo("../evil"))
    for words in (["summary", file], ["eval", file], ["predict", file, "a.png"], ["plan", file], ["pack", file]):
        more = ["--out", "new.engine"] if words[0] == "pack" else []
        assert "evil.engine: got the entry '../evil'" in mistake(capsys, *words, *more)
    # and is never taken for an experiment, whose code would be run
    for name in ("gone.engine", "evil.engine"):
        assert name in mistake(capsys, "summary", name)
