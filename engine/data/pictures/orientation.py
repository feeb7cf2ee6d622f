"""Which way up a picture is, as EXIF or XMP data say.

Without Pillow's parser, which reads all of EXIF and warns where it is odd.
"""

import re
import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image

ORIENTATION = 0x112
KINDS = {3: ("H", 2), 4: ("I", 1)}  # of EXIF's numbers: short, as the standard says, and long; how many have room
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(info: Mapping[Any, Any]) -> int:
    """1 to 8 as EXIF counts, of a picture's "exif" and "xmp" data as Pillow keeps them; 1 where neither says."""
    found = _exif_orientation(info.get("exif") or b"")
    if found is None and (match := re.search(rb'tiff:Orientation(?:="|>)([1-8])', _xmp(info))):
        return int(match[1])
    return found or 1


def _xmp(info: Mapping[Any, Any]) -> bytes:
    found = info.get("xmp", b"")
    return found if isinstance(found, bytes) else b""


def _exif_orientation(exif: bytes) -> int | None:
    """What the first directory of EXIF data says, 1 if it is nothing that can be meant; None if it does not speak."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    start = struct.unpack_from(order + "I", exif, 4)[0]
    if start + 2 > len(exif):
        return None
    count = struct.unpack_from(order + "H", exif, start)[0]
    for place in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", exif, place)
        if tag == ORIENTATION and values:
            number, most = KINDS.get(kind, ("H", 0))
            value = struct.unpack_from(order + number, exif, place + 8)[0]
            return value if values <= most and value in range(1, 9) else 1
    return None
