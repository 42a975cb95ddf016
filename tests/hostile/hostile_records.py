"""Broken and hostile TFRecord files, by what is to become of them."""

from __future__ import annotations

import gzip
import struct
import zlib

import hostile_images
import tensorflow as tf
from mutations import cuts, flips, named
from record_files import example, image_bytes

from trainer.data.record_framing import frame

RECORDS = [
    example(image=image_bytes(number), label=number % 2, image__key=f"k/{number}".encode()) for number in range(4)
]
FRAMED = [frame(record) for record in RECORDS]
GOOD_FILE = b"".join(FRAMED)


def of(*records: bytes) -> bytes:
    """A file of two good records and these."""
    return b"".join([*FRAMED[:2], *map(frame, records)])


def with_checksum(header: bytes, rest: bytes = b"") -> bytes:
    """A record of any length that has the right checksum of it."""
    return header + masked(header) + rest


def masked(data: bytes) -> bytes:
    """The checksum of TFRecord files."""
    return frame(data)[-4:]


def huge_list() -> bytes:
    """An example whose image is a list of a hundred thousand images."""
    values = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"] * 100_000))
    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[0]))
    features = tf.train.Features(feature={"image": values, "label": label})
    return bytes(tf.train.Example(features=features).SerializeToString())


def nested(depth: int) -> bytes:
    """Messages in messages, as a parser without a limit would follow them."""
    data = b""
    for _ in range(depth):
        length, size = len(data), b""
        while True:
            size += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
            length >>= 7
            if not length:
                break
        data = b"\x0a" + size + data
    return data


IMAGE = image_bytes(9)

REFUSED: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"\0",
    "zeros": bytes(4096),
    "text": b"hello, this is no record\n" * 20,
    "a png": hostile_images.PNG,
    "gzip": gzip.compress(GOOD_FILE, mtime=0),
    "zlib": zlib.compress(GOOD_FILE),
    "gzip bomb": gzip.compress(bytes(2**24), mtime=0),
    "length of 2^63": with_checksum(struct.pack("<Q", 2**63), b"x" * 40),
    "length of 2^64": with_checksum(struct.pack("<Q", 2**64 - 1), b"x" * 40),
    "length that wraps around": GOOD_FILE + with_checksum(struct.pack("<Q", 2**64 - 16), b"x" * 40),
    "length of a terabyte": GOOD_FILE + with_checksum(struct.pack("<Q", 2**40), b"x" * 40),
    "length one too large": GOOD_FILE + with_checksum(struct.pack("<Q", 5), b"xxxx" + masked(b"xxxx")),
    "no label": of(example(image=IMAGE)),
    "no image": of(example(label=1)),
    "no features": of(example()),
    "no example": of(b"\xff\xff\xff\xff"),
    "nesting": of(nested(10_000)),
    "image is a number": of(example(image=3, label=1)),
    "image is a list": of(huge_list()),
    "label is a float": of(example(image=IMAGE, label=0.5)),
    "label is two": of(example(image=IMAGE, label=[0, 1])),
    "label is none": of(example(image=IMAGE, label=[])),
    "label is negative": of(example(image=IMAGE, label=-1)),
    "label is 2^31": of(example(image=IMAGE, label=2**31)),
    "label is 2^63": of(example(image=IMAGE, label=2**63 - 1)),
    "label is text among numbers": of(example(image=IMAGE, label=b"cat")),
    "key is a number": of(example(image=IMAGE, label=1, image__key=7)),
    "key is no UTF-8": of(example(image=IMAGE, label=1, image__key=b"\xff\xfe")),
    "key has a NUL": of(example(image=IMAGE, label=1, image__key=b"a\0b")),
    "key comes twice": of(RECORDS[0]),
    "label is no UTF-8": b"".join(frame(example(image=IMAGE, label=name)) for name in (b"cat", b"\xff\xfe")),
    "label is empty": b"".join(frame(example(image=IMAGE, label=name)) for name in (b"cat", b"")),
    "label recolours": b"".join(frame(example(image=IMAGE, label=name)) for name in (b"cat", b"\x1b[31mdog")),
    "label has a line end": b"".join(frame(example(image=IMAGE, label=name)) for name in (b"cat", b"dog\nbird")),
    "label has a line separator": b"".join(
        frame(example(image=IMAGE, label=name)) for name in (b"cat", "dog\u2028bird".encode())
    ),
    "label has a NUL": b"".join(frame(example(image=IMAGE, label=name)) for name in (b"cat", b"do\0g")),
    "one class": frame(RECORDS[0]) + frame(RECORDS[2]),
    **named("whole file", cuts(GOOD_FILE, 12)),
    **named("header", flips(GOOD_FILE, 8, last=12)),
    **named("header", flips(GOOD_FILE, 8, first=len(FRAMED[0]), last=len(FRAMED[0]) + 12)),
    **named("length and its checksum", flips(FRAMED[0], 4, last=8)),
}
"""Not a set that one can train on."""

SKIPPABLE: dict[str, bytes] = {
    **named("data", flips(GOOD_FILE, 8, first=12, last=len(FRAMED[0]) - 4)),
    **named("checksum", flips(GOOD_FILE, 4, first=len(FRAMED[0]) - 4, last=len(FRAMED[0]))),
    "image is empty": of(RECORDS[2], example(image=b"", label=1)),
    "image is text": of(RECORDS[2], example(image=b"text", label=1)),
    "image is a bomb": of(RECORDS[2], example(image=hostile_images.png_claiming(65_535, 65_535), label=1)),
}
"""One record is bad, and the others are as good as ever."""

GOOD: dict[str, tuple[bytes, tuple[str, ...], list[str]]] = {
    "as it should be": (GOOD_FILE, ("0", "1"), ["k/0", "k/1", "k/2", "k/3"]),
    "keys like paths": (
        of(*(example(image=IMAGE, label=1, image__key=key) for key in (b"../../etc/passwd", b"/etc/passwd"))),
        ("0", "1"),
        ["../../etc/passwd", "/etc/passwd", "k/0", "k/1"],
    ),
    "labels like paths and markup": (
        b"".join(
            frame(example(image=IMAGE, label=name, image__key=b"k" + name))
            for name in (b"../../x", b"<script>alert(1)</script>")
        ),
        ("../../x", "<script>alert(1)</script>"),
        ["k../../x", "k<script>alert(1)</script>"],
    ),
    "labels far apart": (
        frame(example(image=IMAGE, label=0, image__key=b"a"))
        + frame(example(image=IMAGE, label=2**31 - 1, image__key=b"b")),
        ("0", "2147483647"),
        ["a", "b"],
    ),
    "keys that recolour": (
        of(*(example(image=IMAGE, label=1, image__key=key) for key in (b"\x1b[31mx", b"a\nb"))),
        ("0", "1"),
        ["\x1b[31mx", "a\nb", "k/0", "k/1"],
    ),
}
"""Odd and right: the classes and the keys that must come out."""

COUNT = len(REFUSED) + len(SKIPPABLE) + len(GOOD)
