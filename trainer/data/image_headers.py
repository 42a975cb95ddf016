"""How many pixels an image claims to have, from its header alone, before a decoder believes it and allocates them.

TensorFlow operations only, because `trainer.data.images` traces them into the SavedModel.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

_HEADER_BYTES = 32


@dataclass(frozen=True)
class _Field:
    """Where a header has a width or a height: a whole number, of which a part counts.

    Attributes:
      first: its first byte.
      size: its bytes.
      big_endian: which of them comes first.
      divisor: takes off bits at the low end.
      modulus: takes off bits at the high end.
      offset: is added.
      wrap: what a negative number, of which the size counts, is short of; 0: it has no sign.
    """

    first: int
    size: int
    big_endian: bool = False
    divisor: int = 1
    modulus: int = 2**32
    offset: int = 0
    wrap: int = 0

    @property
    def powers(self) -> list[int]:
        """What each byte of the header counts, `_HEADER_BYTES` numbers."""
        own = [256**place for place in range(self.size)]
        before, after = [0] * self.first, [0] * (_HEADER_BYTES - self.first - self.size)
        return before + (own[::-1] if self.big_endian else own) + after


_ZERO, _ONE, _UNREADABLE_WIDTH = (_Field(0, 1, modulus=1, offset=offset) for offset in (0, 1, -1))

_UNREADABLE = -1
"""Stands for the pixels of an image whose size is not where it must be."""

_KINDS: tuple[tuple[bytes, bytes, _Field, _Field], ...] = (
    # What it begins with, what stands at byte 12, width, height; the first that fits counts. JPEG and GIF, which are
    # looked at elsewhere, and these are all that TensorFlow 2.21 decodes.
    (b"\x89PNG", b"IHDR", _Field(16, 4, big_endian=True), _Field(20, 4, big_endian=True)),
    (b"BM", b"", _Field(18, 4, wrap=2**32), _Field(22, 4, wrap=2**32)),
    (b"RIFF", b"VP8 ", _Field(26, 2, modulus=2**14), _Field(28, 2, modulus=2**14)),  # WebP, RFC 9649.
    (b"RIFF", b"VP8L", _Field(21, 4, modulus=2**14, offset=1), _Field(21, 4, False, 2**14, 2**14, 1)),
    (b"RIFF", b"VP8X", _Field(24, 3, offset=1), _Field(27, 3, offset=1)),
    # libpng passes over chunks that it does not know, even before the one with the size.
    (b"\x89PNG", b"", _UNREADABLE_WIDTH, _ONE),
    (b"RIFF", b"", _UNREADABLE_WIDTH, _ONE),
    (b"", b"", _ZERO, _ZERO),
)

_ANY = -1
"""Stands for a byte that may be any."""

_GIF_FIRST_BLOCK = 13
_GIF_EXTENSION, _GIF_IMAGE = 0x21, 0x2C
_GIF_MOST_STEPS = 1 << 16
"""Of the walk through a GIF, some 15 microseconds each: a photo takes four, an animation as many a frame. Data blocks
that follow each other and are of one length, as all encoders write them, are one step."""
_GIF_BLOCKS_A_STEP = 4096


def claimed_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Height times width, over all frames, of which a decoder that works through all of them keeps each in memory.

    Args:
      encoded: string scalar, the bytes of a file.

    Returns:
      int64 scalar: 0 where the bytes are of no kind that `tf.io.decode_image` takes; negative where their size cannot
      be told, so that they must not be decoded either.

    Raises:
      tf.errors.InvalidArgumentError: when it runs, if a JPEG's header is damaged.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: jpeg_pixels(tf.io.extract_jpeg_shape(encoded)),
        lambda: claimed_pixels_of_others(encoded),
    )


def claimed_pixels_of_others(encoded: tf.Tensor) -> tf.Tensor:
    """As `claimed_pixels`, of what is no JPEG."""
    return tf.cond(
        tf.strings.substr(tf.strings.join([encoded, "\0" * 4]), 0, 4) == b"GIF8",
        lambda: _gif_pixels(encoded),
        lambda: _pixels_in_header(encoded),
    )


def jpeg_pixels(shape: tf.Tensor) -> tf.Tensor:
    """Height times width, int64 scalar, of what `tf.io.extract_jpeg_shape` gives."""
    return tf.reduce_prod(tf.cast(shape[:2], tf.int64))


def _pixels_in_header(encoded: tf.Tensor) -> tf.Tensor:
    """Looks every kind's size up at once, in few operations: with a small photo their number counts."""
    header = tf.strings.substr(tf.strings.join([encoded, "\0" * _HEADER_BYTES]), 0, _HEADER_BYTES)
    octets = tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int64)
    fields = [field for _, _, width, height in _KINDS for field in (width, height)]
    wholes = tf.linalg.matvec(tf.constant([field.powers for field in fields], tf.int64), octets)
    parts = wholes // [field.divisor for field in fields] % [field.modulus for field in fields]
    extents = tf.minimum(parts, [field.wrap or 2**62 for field in fields] - parts) + [field.offset for field in fields]
    pixels = tf.reduce_prod(tf.reshape(extents, [-1, 2]), axis=1)

    expected = tf.constant([_expected(first, second) for first, second, _, _ in _KINDS], tf.int64)
    fits = tf.reduce_all(tf.logical_or(expected == octets[:16], expected == _ANY), axis=1)
    return pixels[tf.argmax(tf.cast(fits, tf.int32))]


def _expected(beginning: bytes, at_byte_12: bytes) -> list[int]:
    """The first 16 bytes of a kind, as numbers or `_ANY`."""
    before, after = [_ANY] * (12 - len(beginning)), [_ANY] * (4 - len(at_byte_12))
    return [*beginning, *before, *at_byte_12, *after]


# A function that is called and not copied into its caller: TensorFlow runs past every operation of a branch that is
# not taken, and all other images would pay for this walk.
@tf.function(autograph=False, experimental_attributes={"_noinline": True})
def _gif_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Walks from block to block: the decoder unpacks every frame, although only the first is used.

    The screen's size in the header counts for nothing, as in TensorFlow, whose pictures have the size of the largest
    frame.
    """
    length = tf.cast(tf.strings.length(encoded), tf.int64)
    # So that the last block of a file that is cut off can be looked at like any other.
    octets = tf.cast(tf.io.decode_raw(tf.strings.join([encoded, "\0" * _GIF_FIRST_BLOCK]), tf.uint8), tf.int64)
    zero, no = tf.constant(0, tf.int64), tf.constant(False)

    def more(place: tf.Tensor, in_data: tf.Tensor, ended: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return tf.logical_and(place < length, tf.logical_not(ended))

    def step(place: tf.Tensor, in_data: tf.Tensor, _: tf.Tensor, *sizes: tf.Tensor) -> list[tf.Tensor]:
        return tf.cond(
            in_data,
            lambda: [*_after_gif_data(octets, place), no, *sizes],
            lambda: _after_gif_block(octets, place, *sizes),
        )

    start = [_GIF_FIRST_BLOCK + _gif_colors(octets[10]), no, no, zero, zero, zero]
    place, _, ended, total, height, width = tf.while_loop(
        more, step, start, maximum_iterations=_GIF_MOST_STEPS, parallel_iterations=1
    )
    return tf.where(tf.logical_or(ended, place >= length), tf.maximum(total, height * width), _UNREADABLE)


def _after_gif_block(
    octets: tf.Tensor, place: tf.Tensor, total: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> list[tf.Tensor]:
    """Passes over what precedes data: of an image its position, size and colours, which count."""
    kind = octets[place]
    is_image = kind == _GIF_IMAGE
    extent = octets[place + 5 : place + 9 : 2] + 256 * octets[place + 6 : place + 10 : 2]
    extent = tf.where(is_image, extent, 0)
    after_image = place + 11 + _gif_colors(octets[place + 9])
    return [
        tf.where(is_image, after_image, place + 2),
        tf.constant(True),
        tf.logical_not(tf.logical_or(is_image, kind == _GIF_EXTENSION)),
        total + extent[0] * extent[1],
        tf.maximum(height, extent[1]),
        tf.maximum(width, extent[0]),
    ]


def _after_gif_data(octets: tf.Tensor, place: tf.Tensor) -> list[tf.Tensor]:
    """Passes over data blocks that have one length, and says whether there are more: one of no bytes ends them."""
    stride = octets[place] + 1
    lengths = octets[place : place + stride * _GIF_BLOCKS_A_STEP : stride]
    count = tf.size(lengths, tf.int64)
    same = tf.reduce_min(tf.where(lengths + 1 == stride, count, tf.range(count)))
    return [place + tf.where(stride > 1, same * stride, 1), stride > 1]


def _gif_colors(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of the table of colours that the flags of a screen or an image announce."""
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)
