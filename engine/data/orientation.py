"""Which way up a picture is, as EXIF or XMP data say.

Without Pillow's parser, which reads all of EXIF and warns where it is odd.
"""

import re
import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image

ORIENTATION = 0x112
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
    found = _exif_orientation(info.get("exif", b""))
    if found is None and (match := re.search(rb'tiff:Orientation(?:="|>)([1-8])', _xmp(info))):
        return int(match[1])
    return found or 1


def _xmp(info: Mapping[Any, Any]) -> bytes:
    found = info.get("xmp", b"")
    return found if isinstance(found, bytes) else b""


def _exif_orientation(exif: bytes) -> int | None:
    """What the first directory of EXIF data says; None if it does not."""
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    start = struct.unpack_from(order + "I", data, 4)[0]
    if start + 2 > len(data):
        return None
    count = struct.unpack_from(order + "H", data, start)[0]
    for place in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", data, place)
        if tag == ORIENTATION:
            return value if value in range(1, 9) else None
    return None
