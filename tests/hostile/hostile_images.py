"""Broken and hostile image files, by what is to become of them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from image_folders import encoded, gradient
from mutations import cuts, flips, named
from PIL import Image

PIXELS = gradient(12, 18)
PNG, JPEG, GIF, BMP = (
    encoded(PIXELS, kind, mode) for kind, mode in (("PNG", "RGB"), ("JPEG", "RGB"), ("GIF", "P"), ("BMP", "RGB"))
)


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(width: int, height: int, bits: int = 1, first: bytes = b"") -> bytes:
    """A grey PNG of zeros that is what it says: a few kilobytes for any number of pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    rows = min(height, 100_000_000 // (width // 8 + 2))  # A larger one may end early: it must not come to that.
    packed = zlib.compress(b"\0" * (rows * (1 + (width * bits + 7) // 8)), 1)
    return PNG[:8] + first + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def png_claiming(width: int, height: int) -> bytes:
    """A small PNG whose header claims another size."""
    return PNG[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + PNG[24:29]) + PNG[33:]


def jpeg_claiming(width: int, height: int, data: bytes = JPEG) -> bytes:
    """A small JPEG whose header claims another size."""
    place = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


def bmp_claiming(width: int, height: int) -> bytes:
    """A small BMP whose header claims another size."""
    return BMP[:18] + struct.pack("<ii", width, height) + BMP[26:]


def gif_of(frames: int, width: int, height: int, later: tuple[int, int] | None = None) -> bytes:
    """A GIF whose frames claim a size and have no more than a few pixels; all but the first may claim another."""
    parts = [b"GIF89a", struct.pack("<HHBBB", 2, 2, 0x80, 0, 0), bytes(6)]
    for number in range(frames):
        size = later if number and later else (width, height)
        parts.append(b"\x2c" + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x4c\x01\x00")
    return b"".join([*parts, b"\x3b"])


def animated(kind: str, frames: int = 3) -> bytes:
    """An animation whose first frame is `PIXELS`."""
    pictures = [Image.fromarray(gradient(12, 18, shift=40 * number)) for number in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def webp_claiming(chunk_name: bytes, rest: bytes) -> bytes:
    """A WebP that ends after its header."""
    return b"RIFF" + struct.pack("<I", 12 + len(rest)) + b"WEBP" + chunk_name + struct.pack("<I", len(rest)) + rest


def progressive() -> bytes:
    """A JPEG that is refined scan by scan."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", progressive=True)
    return buffer.getvalue()


def with_exif(data: bytes) -> bytes:
    """A JPEG with a note that it is to be turned, which is not applied, and 60 kB of nonsense."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes() + b"\xff\xd9\xff\xd8" * 15_000
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


def sixteen_bit() -> bytes:
    """A PNG whose high bytes are `PIXELS`."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in PIXELS)
    return (
        PNG[:8]
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 18, 12, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


TOO_LARGE: dict[str, bytes] = {
    "png of 4 billion pixels.png": png_claiming(65_535, 65_535),
    "png of the largest numbers.png": png_claiming(2**31 - 1, 2**31 - 1),
    "png that is what it says.png": png_of(20_000, 20_000),
    "png one row.png": png_of(100_000_001, 1),
    "jpeg of 4 billion pixels.jpg": jpeg_claiming(65_500, 65_500),
    "jpeg just above.jpg": jpeg_claiming(10_001, 10_000),
    "progressive jpeg.jpg": jpeg_claiming(65_500, 65_500, progressive()),
    "gif of one frame.gif": gif_of(1, 65_535, 65_535),
    "gif of many frames.gif": gif_of(2000, 500, 500),
    "gif with a large second frame.gif": gif_of(2, 4, 4, later=(65_535, 65_535)),
    "gif with tall and wide frames.gif": gif_of(2, 65_535, 4, later=(4, 65_535)),
    "bmp.bmp": bmp_claiming(65_535, 65_535),
    "bmp upside down.bmp": bmp_claiming(65_535, -65_535),
    "bmp of the largest numbers.bmp": bmp_claiming(-(2**31), -(2**31)),
    "webp.png": webp_claiming(b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(40)),
    "webp without loss.png": webp_claiming(b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(40)),
    "webp extended.png": webp_claiming(b"VP8X", bytes(4) + b"\xff\xff\xff" * 2 + bytes(40)),
}
"""Refused for what they claim, with the flag's name."""

BAD: dict[str, bytes] = {
    "empty.png": b"",
    "one byte.png": b"\x89",
    "zeros.png": bytes(1000),
    "text.jpg": b"not an image",
    "script.png": b"#!/bin/sh\nrm -rf /\n",
    "page.png": b"<!DOCTYPE html><p>404",
    "svg bomb.png": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "&a;&a;">]><svg>&a;</svg>',
    "zip.png": b"PK\x03\x04" + bytes(60),
    "tiff.png": encoded(PIXELS, "TIFF"),
    "tiff with a short header.png": b"II*\0",
    "heic.png": b"\0\0\0\x18ftypheic" + bytes(50),
    "webp without a chunk.png": b"RIFF\x04\0\0\0WEBP",
    "webp of an unknown chunk.png": webp_claiming(b"ABCD", bytes(40)),
    "png hidden size.png": png_of(20_000, 20_000, first=chunk(b"abCd", b"x")),
    "png with the sign bit.png": png_claiming(2**32 - 1, 2**32 - 1),
    "png of no size.png": png_claiming(0, 0),
    "png header only.png": PNG[:8],
    "png without data.png": PNG[:33] + chunk(b"IEND", b""),
    "png with a damaged checksum.png": PNG[:-20] + b"\0" + PNG[-19:],
    "png with too little data.png": PNG[:33] + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b""),
    "png signature of a text transfer.png": PNG.replace(b"\r\n", b"\n", 1),
    "jpeg of no size.jpg": jpeg_claiming(0, 0),
    "jpeg markers only.jpg": b"\xff\xd8\xff\xd9",
    "jpeg without an image.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0",
    "jpeg segment of length zero.jpg": b"\xff\xd8\xff\xe0\0\0" + bytes(50),
    "gif header only.gif": GIF[:6],
    "gif without a frame.gif": b"GIF89a\x02\0\x02\0\0\0\0\x3b",
    "gif of no size.gif": gif_of(1, 0, 0),
    "gif of endless extensions.gif": GIF[:13] + b"\x21\xfe\x01a\x02aa" * 500,
    "gif of blocks of changing length.gif": GIF[:13] + b"\x21\xfe" + b"\x01a\x02aa" * 40_000 + b"\0\x3b",
    "bmp header only.bmp": BMP[:26],
    "bmp of 4 bits.bmp": BMP[:28] + b"\x04\0" + BMP[30:],
    "bmp with a palette beyond its end.bmp": BMP[:10] + b"\xff\xff\xff\x7f" + BMP[14:28] + b"\x08\0" + BMP[30:],
    "bmp that claims a little more.bmp": bmp_claiming(19, 12),
    **{f"{name}.png": data for name, data in named("png", cuts(PNG, 12)).items()},
    **{f"{name}.jpg": data for name, data in named("jpeg", cuts(JPEG, 16)).items()},
    **{f"{name}.bmp": data for name, data in named("bmp", cuts(BMP, 8)).items()},
    **{f"{name}.gif": data for name, data in named("gif", cuts(GIF[:-1], 8)).items()},
    **{f"{name}.png": data for name, data in named("png", flips(PNG, 24)).items()},
}
"""Refused: nothing of them may be taken for a picture."""

GOOD: dict[str, tuple[bytes, int]] = {
    "exif.jpg": (with_exif(JPEG), 0),
    "grey with alpha.png": (encoded(PIXELS, "PNG", "LA"), 0),
    "one bit.png": (encoded(PIXELS, "PNG", "1"), 0),
    "palette.png": (encoded(PIXELS, "PNG", "P"), 0),
    "cmyk.jpg": (encoded(PIXELS, "JPEG", "CMYK"), 2),
    "sixteen bits.png": (sixteen_bit(), 0),
    "animated.gif": (animated("GIF"), 0),
    "animated.png": (animated("PNG"), 0),
    "animation cut off after its first frame.gif": (animated("GIF")[:-900], 0),
    "gif without its end.gif": (GIF[:-1], 0),
    "gif with a screen of 4 billion pixels.gif": (GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:], -1),
    "trailing garbage.jpg": (JPEG + b"<script>" * 1000, 0),
    "trailing archive.png": (PNG + b"PK\x03\x04" + bytes(100), 0),
    "trailing image.png": (PNG + png_claiming(65_535, 65_535), 0),
    "another name.bmp": (PNG, 0),
    "png called jpeg.jpg": (PNG, 0),
    "one pixel.png": (encoded(np.zeros((1, 1, 3), np.uint8)), 0),
    "long and thin.png": (encoded(np.zeros((1, 9000, 3), np.uint8)), 0),
}
"""Odd, and decoded: with the mean difference from PIL's pixels that is allowed, -1 where PIL sees another picture and
that of `GIF` must come out."""

FLIPPED: dict[str, bytes] = {
    **{f"{name}.jpg": data for name, data in named("jpeg", flips(JPEG, 20)).items()},
    **{f"{name}.gif": data for name, data in named("gif", flips(GIF, 12)).items()},
    **{f"{name}.bmp": data for name, data in named("bmp", flips(BMP, 8, last=54)).items()},
}
"""Either refused or decoded, as there is no checksum in them; never anything else."""

COUNT = len(TOO_LARGE) + len(BAD) + len(GOOD) + len(FLIPPED)
