"""Pictures as raters get them: pixels and nothing else, and heat maps in colour.

A PNG file may carry texts and times that would tell a curious rater where it came from. Only the parts without which it
cannot be shown go out. A grey map becomes a coloured one by a palette: its pixels stay what they are.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import matplotlib as mpl

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
NEEDED: Final = (b"IHDR", b"IDAT", b"IEND")
COLORMAP: Final = "inferno"
PALETTE_COLOURS: Final = 3


def bare(png: bytes) -> bytes:
    """An RGB PNG file without anything but its pixels."""
    return SIGNATURE + b"".join(whole for kind, whole in _chunks(png) if kind in NEEDED)


def coloured(png: bytes, palette: bytes) -> bytes:
    """An 8-bit grey PNG file in the colours of a palette, without anything but its pixels.

    Args:
        png: of a heat map, 255 the hottest.
        palette: 256 colours, three bytes each.
    """
    parts = [SIGNATURE]
    for kind, whole in _chunks(png):
        if kind == b"IHDR":
            header = whole[8:17] + bytes([PALETTE_COLOURS]) + whole[18:-4]
            parts += [_chunk(b"IHDR", header), _chunk(b"PLTE", palette)]
        elif kind in NEEDED:
            parts.append(whole)
    return b"".join(parts)


def heat_palette() -> bytes:
    """256 colours from cold to hot, even in lightness, so that they also read in grey."""
    colours = mpl.colormaps[COLORMAP](range(256), bytes=True)
    return bytes(colours[:, :3].tobytes())


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each part; the bytes are length, kind, data and checksum."""
    position = len(SIGNATURE)
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        yield kind, png[position : position + length + 12]
        position += length + 12


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
