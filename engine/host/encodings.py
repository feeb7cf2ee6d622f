"""Detects the encoding of a text file: UTF-8, UTF-16, or the older one in which its words look like words.

Class names are a handful of short words, too few for the statistics of charset detectors (charset-normalizer takes 犬
and 猫 in Shift-JIS for Cyrillic). The form of the words distinguishes the older encodings: Western words have a few
accented letters among ASCII ones, Cyrillic words have no ASCII letters, Japanese words have characters of their own. If
no reading stands out, the file is rejected and the user has to name the encoding.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.errors import InputError, problem

BLOCK_BYTES = 2**20
SAMPLE_BYTES = 2**16
LEAST_SCORE = 0.7
LEAST_MARGIN = 0.2
LEAST_LETTERS = {"cp1252": 2, "cp1251": 3, "cp932": 1}
SHOWN_WORDS = 3
OLDER = ("cp1252", "cp1251", "cp932")
TITLES = {"cp1252": "cp1252 (Western)", "cp1251": "cp1251 (Cyrillic)", "cp932": "Shift-JIS (cp932)"}
_WESTERN = set("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿŠšŽžŒœŸ")
_CYRILLIC = set("АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюяЁёІіЇїЄєҐґЎў")
_MARKS = set("‘’“”–—…€°ªº«»¡¿£§©®™·№\xa0")
_ASCII_BOUNDS = re.compile(r"[\x00-\x40\x5b-\x60\x7b-\x7f]+")


class Encoding(NamedTuple):
    """codec: its name in Python. note: what was guessed, for the user; empty if nothing was."""

    codec: str
    note: str = ""


def encoding_of(path: Path, named: str | None = None) -> Encoding:
    """The encoding of a text file: the one that is `named`, or the one found in its bytes.

    Raises InputError if the bytes are not text in it, or if no reading of them stands out.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if named is not None:
        codec = codecs.lookup(named).name
        has_mark = codec == "utf-8" and start.startswith(codecs.BOM_UTF8)
        return Encoding("utf-8-sig" if has_mark else codec)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # which begins as UTF-16 does
        return Encoding("utf-32")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Encoding("utf-16")
    if b"\0" in start:
        return Encoding(_without_mark(path, start))
    if _is_utf_8(path):
        return Encoding("utf-8-sig")
    return _older(path)


def is_text_codec(name: str) -> bool:
    """Whether Python can read text in an encoding of this name."""
    try:
        return bool(codecs.lookup(name)._is_text_encoding)  # type: ignore[attr-defined]
    except (LookupError, ValueError):
        return False


def _without_mark(path: Path, start: bytes) -> str:
    """UTF-16 without a byte order mark, by the position of the zeros: every second byte of ASCII text."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) > len(start) / 4 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    raise InputError(problem(str(path), "bytes that are not text", "a table as text", "Save it as CSV in UTF-8."))


def _is_utf_8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                if decoder.getstate()[0] or not block.isascii():
                    decoder.decode(block)
            decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def _older(path: Path) -> Encoding:
    """The older encoding in which the words with non-ASCII letters look like words."""
    sample = b"".join(_lines_beyond_ascii(path))
    scores, words = {}, {}
    for codec in OLDER:
        words[codec] = _words(sample, codec)
        scores[codec] = sum(_plausibility(codec, word) for word in words[codec]) / max(1, len(words[codec]))
        if sum(map(len, words[codec])) < LEAST_LETTERS[codec]:
            scores[codec] /= 2
    best, second = sorted(OLDER, key=lambda codec: -scores[codec])[:2]
    if scores[best] < LEAST_SCORE or scores[best] - scores[second] < LEAST_MARGIN:
        readings = [f"{', '.join(words[codec][:SHOWN_WORDS])} in {codec}" for codec in OLDER if words[codec]]
        got = f"text that is not UTF-8 ({'; '.join(readings) or 'or any other known encoding'})"
        remedy = "Save it as UTF-8, or name its encoding, like --data.encoding cp1250."
        raise InputError(problem(str(path), got, "UTF-8, UTF-16, or words in cp1252, cp1251 or Shift-JIS", remedy))
    shown = ", ".join(words[best][:SHOWN_WORDS])
    return Encoding(best, f"{path}: is not UTF-8; read as {TITLES[best]}: {shown}; --data.encoding names another")


def _lines_beyond_ascii(path: Path) -> Iterator[bytes]:
    """Lines with non-ASCII bytes, each once, up to SAMPLE_BYTES of them."""
    seen, size = set[bytes](), 0
    with path.open("rb") as file:
        while size < SAMPLE_BYTES and (line := file.readline(SAMPLE_BYTES)):
            if not line.isascii() and line not in seen:
                seen.add(line)
                size += len(line)
                yield line if line.endswith(b"\n") else line + b"\n"


def _words(sample: bytes, codec: str) -> list[str]:
    """The distinct words with non-ASCII letters, in order; none if the bytes are not valid in this encoding."""
    try:
        text = sample.decode(codec)
    except UnicodeDecodeError:
        return []
    return list(
        dict.fromkeys(word for word in _ASCII_BOUNDS.split(text) if not (set(word) <= _MARKS or word.isascii()))
    )


def _plausibility(codec: str, word: str) -> float:
    """0 to 1: how much a word looks like one of the languages that an encoding is for."""
    word = "".join(letter for letter in word if letter not in _MARKS)
    beyond = [letter for letter in word if not letter.isascii()]
    if not beyond:
        return 1.0
    if codec == "cp932":
        return _japanese(word, beyond)
    if not set(beyond) <= (_WESTERN if codec == "cp1252" else _CYRILLIC) or not _has_even_case(word):
        return 0.0
    if codec == "cp1251":
        return 1.0 if len(beyond) == len(word) else 0.0
    share = len(beyond) / len(word)
    return 1.0 if share <= 0.5 else 0.8 if share < 1 else 0.4 if len(word) == 1 else 0.0


def _japanese(word: str, beyond: list[str]) -> float:
    names = [unicodedata.name(letter, "") for letter in beyond]
    if any(name.startswith("HALFWIDTH") for name in names):
        return 0.5 if all(name.startswith("HALFWIDTH") for name in names) and len(beyond) == len(word) else 0.0
    if not all(
        re.match("HIRAGANA|KATAKANA|CJK UNIFIED|FULLWIDTH|IDEOGRAPHIC|KATAKANA-HIRAGANA", name) for name in names
    ):
        return 0.0
    # The more common characters; misread Western words have rare ones, among ASCII letters.
    rare = sum(letter.encode("cp932", "replace")[0] >= 0x98 for letter in beyond)
    mixed = 0.5 if len(beyond) < len(word) else 1.0
    return mixed * (1 - rare / len(beyond) / 2)


def _has_even_case(word: str) -> bool:
    """Whether a word is lower case, upper case or capitalised; misread words seldom are."""
    return (
        word[1:].islower() or word.isupper() or word.islower() or len(word) == 1 or word[1:].upper() == word[1:].lower()
    )
