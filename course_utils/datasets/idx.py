"""Read IDX files, the array format of the MNIST family."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_idx"]

_GZIP_MAGIC = b"\x1f\x8b"
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | PathLike[str]) -> NDArray[Any]:
    """Read one IDX file, gzip-compressed or plain.

    The format: two zero bytes, one byte for the element type, one for the number of axes; each axis length as a
    big-endian 32-bit integer; then the elements, big-endian, last axis fastest.

    Args:
        path: the file. Compression is recognized by content, so the name is free.

    Returns:
        A writable array in the machine's byte order, its shape and type as the file's header says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, corrupt, too long, or not IDX at all; the message names the file.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section on file formats.
    """
    path = Path(path)
    content = _decompressed(path)
    dtype, shape, header_size = _parse_header(content, path)
    expected = math.prod(shape) * dtype.itemsize
    found = len(content) - header_size
    if found != expected:
        problem = "is truncated" if found < expected else "has trailing bytes"
        raise ValueError(f"{path} {problem}: its header announces shape {shape}, {expected} bytes of data, got {found}")
    values = np.frombuffer(content, dtype=dtype, offset=header_size).reshape(shape)
    return values.astype(dtype.newbyteorder("="))  # also the copy that makes the array writable


def _decompressed(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a truncated or corrupt gzip file: {error}") from error


def _parse_header(content: bytes, path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return the element type, the shape and the header's size in bytes."""
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] == 0:
        types = ", ".join(f"{code:02x}" for code in _DTYPES)
        raise ValueError(
            f"{path} is not an IDX file: expected 00 00, one of the types {types} and the number of axes, at least 1, "
            f"got {magic.hex(' ') or 'nothing'}"
        )
    code, n_axes = magic[2:]
    header_size = 4 + 4 * n_axes
    if len(content) < header_size:
        raise ValueError(f"{path} is truncated: a header for {n_axes} axes has {header_size} bytes, got {len(content)}")
    shape = struct.unpack(f">{n_axes}I", content[4:header_size])
    return np.dtype(_DTYPES[code]), shape, header_size
