"""What is printed: in every encoding, at every width, with names and labels that hold anything."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console as RichConsole

import engine
from engine.errors import problem
from engine.host.console import Console, Shortened, Table, as_text, shortened
from engine.report.progress import Reporter
from engine.report.tables import metrics_table
from engine.text import CsvWriter, counted, csv_cell, encodable, one_line, printable
from tests.commands.test_data import command
from tests.conftest import HANG_SECONDS

# Sets the clipboard, clears the screen, turns the writing around, hides itself, starts a line, is no UTF-8.
ATTACK = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\u202egpj\x9b2J\r\x00\u2028\udcff"
SHOWN = r"\x1b]52;c;cm0gLXJm\x07\x1b[2J\u202egpj\x9b2J\x0d\x00\u2028\xff"
ENCODINGS = ("ascii", "cp437", "cp1252", "latin-1", "utf-8", "utf-16")
SETTINGS = settings(max_examples=200, derandomize=True, deadline=None, database=None)


def printed(renderable: object, encoding: str = "utf-8", width: int | None = None) -> str:
    """What reaches a file of an encoding, or a terminal of that width."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    console = Console(file=file)
    if width is not None:
        console._force_terminal, console._color_system, console._width = True, None, width
    console.print(renderable, soft_wrap=isinstance(renderable, str))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_control_characters_are_shown_as_escapes_and_words_of_any_language_as_they_are():
    assert printable(ATTACK) == SHOWN
    assert printable("кошка 猫 🐈‍⬛ naïve\tcafé\n") == "кошка 猫 🐈‍⬛ naïve\tcafé\n"
    assert one_line("a\nb\tc") == r"a\nb\tc"
    assert printable(SHOWN) == SHOWN


@SETTINGS
@given(st.text(), st.sampled_from(ENCODINGS))
@example(ATTACK, "ascii")
def test_any_text_is_printed_in_any_encoding_with_nothing_that_steers_a_terminal(text, encoding):
    table = Table(text, heading=text, footnote=text)
    table.add_row(text)
    table.add_row(Shortened(text))
    for renderable in (text, table, metrics_table([(text, {"n": 1})], text)):
        for width in (None, 40):
            shown = printed(renderable, encoding, width)
            assert printable(shown) == shown


def test_consoles_of_another_encoding_show_other_characters_as_escapes():
    assert encodable("28×28 … кот", "cp1252") == r"28×28 … \u043a\u043e\u0442"
    assert encodable("28×28 … кот", "ascii") == r"28x28 ... \u043a\u043e\u0442"
    assert encodable("28×28", "no such encoding") == "28x28"
    assert printed(metrics_table([("кот", {"n": 1})], "×"), "ascii").isascii()


@pytest.mark.parametrize("columns", ["20", "40", "200"])
def test_what_goes_to_a_pipe_does_not_depend_on_the_terminal_or_on_the_length_of_paths(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    path = f"/{'long/' * 50}run"
    first, *rest = printed(metrics_table([(path, {"n": 10, "loss": 0.5})], f"{path}, step 5, member 1")).splitlines()
    assert first == f"{path}, step 5, member 1"
    assert any(path in line and "0.5000" in line for line in rest)
    assert as_text(metrics_table([(path, {"n": 10})], path)).startswith(f"{path}\n")


def test_a_terminal_shows_titles_and_paths_on_one_line_without_their_middle():
    path = f"/{'long/' * 50}run"
    table = Table("image", "1.", heading=f"{path}, step 5, member 1")
    table.add_row(Shortened(f"{path}.png"), "dog 0.900")
    title, *rows = printed(table, width=60).splitlines()
    assert len(title) == 60
    assert title.startswith("/long/")
    assert title.endswith("/run, step 5, member 1")
    (row,) = [row for row in rows if "dog" in row]
    assert "…" in row
    assert "/run.png" in row
    assert all(len(row) <= 60 for row in rows)


@SETTINGS
@given(st.text(st.characters(blacklist_categories=("Cc", "Cs", "Mn"))), st.integers(4, 30))
def test_shortened_text_has_its_ends_and_fits(text, width):
    short = shortened(text, width)
    assert cell_len(short) <= max(width, cell_len(text) if cell_len(text) <= width else 0)
    assert short == text or "…" in short


def test_emoji_codes_and_markup_in_names_are_left_alone():
    assert ":cat:[red]" in printed(metrics_table([(":cat:[red]", {"n": 1})], ":dog:"))


# Spreadsheets


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+1", "-1-1", "@SUM(1)", "＝1", "\t=1", "\n=1"])
def test_text_that_a_spreadsheet_would_run_is_quoted(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1.5, -1, "-1.5", "+3", "1e-3", "-.5", "a=b", "cat", "", None, "a-b.png"])
def test_numbers_and_plain_text_stay_as_they_are_in_a_table(value):
    assert csv_cell(value) == value


def test_one_of_a_thing_is_counted_as_one():
    texts = [counted(count, thing) for count in (0, 1, 10_000) for thing in ("image", "class")]
    assert texts == ["0 images", "0 classes", "1 image", "1 class", "10,000 images", "10,000 classes"]


def test_every_csv_file_is_written_by_one_writer():
    root = Path(engine.__file__).parent
    by_hand = [
        path.name for path in root.rglob("*.py") if "csv.writer" in path.read_text() or "DictWriter" in path.read_text()
    ]
    assert sorted(by_hand) == ["class_folders.py", "text.py"]  # the first only prints a command that writes one


def test_everything_printed_goes_through_one_place():
    root = Path(engine.__file__).parent
    for path in (*root.rglob("*.py"), *(root.parent / "experiments").glob("*.py")):
        text = path.read_text()
        if path.name not in ("console.py", "draw.py"):
            assert "rich.console import" not in text, path
            assert "rich.table import" not in text, path
            assert " print(" not in text, path


def test_csv_rows_are_read_back_and_hold_no_control_characters():
    file = io.StringIO()
    CsvWriter(file).writerows([["a,b", 'c"d', "e\nf"], [ATTACK, "=1+1", 5]])
    assert list(csv.reader(io.StringIO(file.getvalue()))) == [["a,b", 'c"d', "e\nf"], [SHOWN, "'=1+1", "5"]]


# Errors, logs and commands


def test_errors_hold_no_control_characters_and_names_in_them_start_no_line():
    assert str(engine.InputError(f"{ATTACK}\nsecond line")) == f"{SHOWN}\nsecond line"
    assert problem("a\nerror: b", ATTACK, "c", "D.") == rf"a\nerror: b: got {SHOWN}; expected c. D."


def test_log_of_a_run_holds_no_control_characters(tmp_path):
    reporter = Reporter(RichConsole(quiet=True))
    reporter.log_to(tmp_path / "log.txt")
    reporter.say(ATTACK)
    reporter.say(metrics_table([(ATTACK, {"n": 1})], ATTACK))
    assert SHOWN in (text := (tmp_path / "log.txt").read_text())
    assert printable(text) == text


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes and files whose names steer a terminal, in a folder beside one of plain Cyrillic."""
    root = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for folder, classes in (("odd", ("a", "b")), ("cyrillic", ("кошка", "собака"))):
        for name in classes:
            (root / folder / name).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(draw.integers(0, 255, (8, 8), np.uint8)).save(root / folder / name / f"{i}.png")
    (root / "odd" / "a" / f"x{ATTACK[:12]}\nerror.png").write_bytes(b"no picture")
    return root


def run_command(*arguments: object, **environment: str) -> tuple[int, bytes]:
    """(exit code, all that was printed) of `engine …` in a process of its own."""
    line = [sys.executable, "-m", "engine", *(os.fsencode(str(argument)) for argument in arguments)]
    done = subprocess.run(
        line, capture_output=True, env={**os.environ, **environment}, timeout=HANG_SECONDS, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_command_prints_in_the_encoding_of_its_pipe(photos, tmp_path, encoding):
    code, said = run_command("data", photos / "cyrillic", "--out", tmp_path / "a.png", PYTHONIOENCODING=encoding)
    assert code == 0, said
    assert rb"\u043a\u043e\u0448\u043a\u0430" in said
    assert b"Traceback" not in said


def test_option_that_the_parser_repeats_reaches_the_terminal_escaped():
    for arguments in (("data", f"--{ATTACK[:20]}"), ("summary", f"/nowhere/{ATTACK[:20]}/run")):
        code, said = run_command(*arguments, FORCE_COLOR="1")
        assert code == 2, said
        assert rb"\x1b]52" in said
        assert b"\x1b]52" not in said


def test_names_of_files_reach_the_terminal_escaped(photos, tmp_path, capsys):
    command(capsys, "data", photos / "odd", "--out", tmp_path / "a.png", "--data.on-bad-file", "skip")
    with pytest.raises(SystemExit):
        command(capsys, "data", photos / "odd", "--out", tmp_path / "a.png", "--data.on-bad-file", "stop")
    said = "".join(capsys.readouterr())
    assert "\x1b" not in said
    assert r"x\x1b]52;c;cm0gL\nerror.png: " in said
