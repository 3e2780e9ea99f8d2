"""An entry of a cache on disk: a folder of arrays and what is known of them.

It appears whole, by renaming, and one that does not match its checksums counts as not there.
"""

import io
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.exceptions import DatasetError

ENTRY = "entry.json"


@dataclass(frozen=True)
class CacheEntry:
    """What an entry holds."""

    arrays: Mapping[str, npt.NDArray[Any]]
    """By name; mapped from disk."""
    about: Mapping[str, Any]
    """JSON values: what was given with the arrays."""


def write_arrays(folder: Path, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write an entry under a temporary name and rename it. What else is at its place is removed, the same one stays.

    Raises:
        DatasetError: the disk is full or not writable; nothing is left behind.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        files = {f"{name}.npy": _write_array(temporary / f"{name}.npy", array) for name, array in arrays.items()}
        (temporary / ENTRY).write_text(json.dumps({**about, "files": files}))
        if _is_entry(folder, arrays, about):
            # Another process was first, and may be about to map it.
            shutil.rmtree(temporary)
            return
        if folder.exists():
            damaged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            folder.rename(damaged)
            shutil.rmtree(damaged)
        os.rename(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # Another process may have put the same entry there first; it is as good as ours.
        if read_arrays(folder) is None:
            raise DatasetError(f"cache entry '{folder}' cannot be written: {error}") from error


def read_arrays(folder: Path) -> CacheEntry | None:
    """The entry in a folder, its checksums compared; None where there is none or it is damaged."""
    try:
        files: Mapping[str, str] = json.loads((folder / ENTRY).read_text())["files"]
        whole = all(_checksum(folder / name) == checksum for name, checksum in files.items())
        return map_arrays(folder) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_entry(folder: Path, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> bool:
    """Whether a whole entry of these names and with this `about` is in a folder."""
    found = read_arrays(folder)
    return found is not None and found.arrays.keys() == arrays.keys() and found.about == json.loads(json.dumps(about))


def map_arrays(folder: Path) -> CacheEntry:
    """The entry in a folder, unchecked: for what was written a moment ago."""
    about: dict[str, Any] = json.loads((folder / ENTRY).read_text())
    names = [Path(file).stem for file in about.pop("files")]
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
    return CacheEntry(arrays, about)


def _write_array(path: Path, array: npt.NDArray[Any]) -> str:
    """Write an array as `np.save` does; gives the file's checksum without reading it back."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.write(data)
    return f"{len(header.getvalue()) + len(data)}:{zlib.crc32(data, zlib.crc32(header.getvalue())):08x}"


def _checksum(path: Path) -> str:
    """Size and CRC-32 of a file."""
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return f"{size}:{crc:08x}"
