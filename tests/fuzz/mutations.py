"""Files of the corpus → damaged ones: as bytes, or in the structure that a reader sees only if the rest is whole."""

import copy
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[bytes, Sequence[bytes], Random], bytes]
HEADER_BYTES = 300
MOST_BYTES = 2**18
EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)
NUMBERS = [bytes(8), b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7), b"\xff\xff\xff\x7f" + bytes(4)]
TOKENS = [
    b"\0", b"\xff", b'"', b"'", b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"-1", b"1e999",
    b"nan", b"9" * 5000, b"[" * 3000, b"{" * 3000, b"(" * 3000, b"-" * 3000, b"a" * 140_000, b"\xe2\x80\xae",
    b"\x1b[2J", b"../../x", b"/dev/zero", b"~nobody/x", b"True", b"None", b"<f8", b"|O", b"PK\3\4", b"PK\5\6",
    b"\xf0\x9f\x90\x88",
    b"\xd8\xff", "ﬁ".encode(), b" " * 70_000, b"\n" * 70_000, b'","' * 500, b"0" * 70_000, b"path,label\n",
    b"\x93NUMPY",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, 1e308, -1e308, float("nan"),
    float("inf"), "", "x", "x" * 5000, "\x1b[2J", "\ud800", "os:system", "../../x", [], {}, [[]], [1, 2, 3],
    {"kind": "Dense"}, ["a"] * 999,
]  # fmt: skip


def mutated(data: bytes, others: Sequence[bytes], draw: Random, structure: Mutation | None) -> tuple[bytes, bool]:
    """One to four damages, one after the other, and whether the first is to the structure: as often as not."""
    is_structured = structure is not None and draw.random() < 0.6
    if structure is not None and is_structured:
        data = structure(data, others, draw)
        if draw.random() < 0.8:
            return data[:MOST_BYTES], True
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice(BYTE_DAMAGES)(data, others, draw)
    return data[:MOST_BYTES], is_structured


def flipped(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """Up to ten bits turned, anywhere or in the header."""
    changed = bytearray(data or b"\0")
    most = draw.choice((len(changed), min(len(changed), HEADER_BYTES)))
    for _ in range(draw.randint(1, 10)):
        changed[draw.randrange(most)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """Without its end, its start, or a piece in between."""
    start, end = sorted(draw.randint(0, len(data)) for _ in range(2))
    return draw.choice((data[:start], data[start:], data[:start] + data[end:]))


def inserted(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """With a token in it, or in place of as many bytes."""
    at, token = draw.randint(0, min(len(data), draw.choice((len(data), HEADER_BYTES)))), draw.choice(TOKENS)
    return data[:at] + token + data[at + draw.choice((0, len(token))) :]


def numbered(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """With an extreme number of some width over its bytes, in either order."""
    width, number = draw.choice((1, 2, 4, 8)), draw.choice(NUMBERS)
    at = draw.randint(0, min(len(data), draw.choice((len(data), HEADER_BYTES))))
    return data[:at] + number[:width][:: draw.choice((1, -1))] + data[at + width :]


def doubled(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """With a piece repeated, up to some thousand times."""
    start, end = sorted(draw.randint(0, len(data)) for _ in range(2))
    piece = data[start : min(end, start + 200)]
    return data[:end] + piece * draw.choice((1, 2, 30, 1000)) + data[end:]


def spliced(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """The start of one file and the end of another."""
    other = draw.choice(others)
    return data[: draw.randint(0, len(data))] + other[draw.randint(0, len(other)) :]


BYTE_DAMAGES: tuple[Mutation, ...] = (flipped, cut, inserted, numbered, doubled, spliced)


def json_changed(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """A JSON text with values replaced, left out or put elsewhere."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return inserted(data, others, draw)
    for _ in range(draw.choice((1, 1, 2, 5))):
        tree = _changed(tree, draw)
    return json.dumps(tree).encode()


def _changed(tree: Any, draw: Random) -> Any:
    if not isinstance(tree, (dict, list)) or not tree or draw.random() < 0.15:
        return copy.deepcopy(draw.choice(VALUES))  # or one input would change the next
    key = draw.choice(list(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
    way = draw.random()
    if way < 0.7:
        tree[key] = _changed(tree[key], draw)
    elif way < 0.8:
        tree.pop(key)
    elif isinstance(tree, list):
        tree[key:key] = copy.deepcopy([tree[key]] * draw.choice((1, 100)))
    else:
        tree[draw.choice(("x", "kind", "\x1b", draw.choice(list(tree))))] = copy.deepcopy(tree[key])
    return tree


def zip_changed(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """An archive with a member damaged, left out or renamed, its checksums right."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # damaged before
        return flipped(data, others, draw)
    if members:
        name = draw.choice(list(members))
        content, way = members.pop(name), draw.random()
        if way < 0.8:
            inner = json_changed if content[:1] == b"{" and draw.random() < 0.7 else draw.choice(BYTE_DAMAGES)
            members[name] = inner(content, list(members.values()) or [b""], draw)
        elif way < 0.9:
            members[draw.choice(("x", "../x", "/x", name.upper(), f"{name}/x", "images.npy"))] = content
    file, way_in = io.BytesIO(), draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w") as new:
        for name, content in members.items():
            new.writestr(zipfile.ZipInfo(name, EARLIEST_DATE), content, way_in)  # and not the time of day
    return file.getvalue()


def header_changed(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """A safetensors file with its header changed, and the length before it right."""
    length = int.from_bytes(data[:8], "little")
    header = json_changed(data[8 : 8 + length], others, draw)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]
