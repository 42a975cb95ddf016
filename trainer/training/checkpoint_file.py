"""A checkpoint as one file: numbers, what they belong to, and a digest of all of it.

    8 bytes, little-endian     length of the header
    header                     JSON: for each tensor its dtype, shape and place; "__metadata__": texts, among them
                               "sha256", of header and data, taken with zeros in its own place
    data                       the tensors, one behind the other

That is the safetensors format (https://github.com/huggingface/safetensors, as of 2026-11), which many programs read and
which holds numbers and nothing that could run. One file is there or not, on a disk as on `gs://`, and costs a fraction
of the several files of a TensorFlow checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]

_METADATA = "__metadata__"
_DIGEST = "sha256"
_NO_DIGEST = "0" * 64
"""Stands where the digest will be while the digest is taken."""

_LENGTH_BYTES = 8
_ALIGNMENT = 8

_LETTERS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_DTYPES = {letters: name for name, letters in _LETTERS.items()}


class DamagedFileError(Exception):
    """The bytes are not those that were written; the message says what is wrong."""


def encode(tensors: Tensors, metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The parts of the file, in order; the tensors are not copied.

    Args:
      tensors: by name, of floats, whole numbers and booleans.
      metadata: texts by name, "sha256" not among them.
    """
    places: dict[str, Any] = {_METADATA: {_DIGEST: _NO_DIGEST, **metadata}}
    # Little-endian and contiguous, as the format wants; numbers on this machine are both unless somebody sliced them.
    data = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    end = 0
    for name, value in data.items():
        begin, end = end, end + value.nbytes
        letters = _LETTERS[value.dtype.name]
        places[name] = {"dtype": letters, "shape": list(np.shape(tensors[name])), "data_offsets": [begin, end]}
    text = json.dumps(places, ensure_ascii=True, separators=(",", ":"))
    header = text.encode() + b" " * (-len(text) % _ALIGNMENT)
    body = [memoryview(value.reshape(-1).view(np.uint8).data) for value in data.values()]
    signed = header.replace(_NO_DIGEST.encode(), _digest([header, *body]).encode(), 1)
    return [len(header).to_bytes(_LENGTH_BYTES, "little"), signed, *body]


def decode(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors, as views of `content`, and the metadata.

    Raises:
      DamagedFileError: any byte is not what `encode` gave.
    """
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if len(content) < start or not length:
        raise DamagedFileError("it is cut off")
    header = content[_LENGTH_BYTES:start]
    data = memoryview(content)[start:]
    try:
        places = json.loads(header)
        metadata = places.pop(_METADATA)
        digest = metadata.pop(_DIGEST)
        if len(digest) != len(_NO_DIGEST) or not all(isinstance(text, str) for text in metadata.values()):
            raise DamagedFileError("its header is not one of ours")
        unsigned = header.replace(digest.encode(), _NO_DIGEST.encode(), 1)
        if _digest([unsigned, data]) != digest:
            raise DamagedFileError("its bytes do not add up to their digest")
        return {name: _tensor(data, place) for name, place in places.items()}, metadata
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DamagedFileError("its header cannot be read") from None


def _tensor(data: memoryview, place: Mapping[str, Any]) -> NDArray[Any]:
    dtype = tf.as_dtype(_DTYPES[place["dtype"]]).as_numpy_dtype
    begin, _ = place["data_offsets"]
    count = math.prod(place["shape"])
    return np.frombuffer(data, dtype, count, begin).reshape(place["shape"])


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
