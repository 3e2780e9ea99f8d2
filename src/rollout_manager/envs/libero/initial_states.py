"""LIBERO's initial states, read without executing a pickle.

A file is what `torch.save` makes of a NumPy array: a zip whose `data.pkl` is a pickle that rebuilds it. A pickle is a
program; here it is not run but compared, opcode by opcode, with the one program that rebuilds a float64 matrix. Two
things may differ: the matrix's shape, and its bytes.
"""

import pickletools
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array

STATES = 50
"""Initial states a task."""
LARGEST = 1 << 20
"""Bytes; the installed files hold at most some tens of kilobytes."""

PROGRAM = """
PROTO 2

GLOBAL numpy.core.multiarray _reconstruct | BINPUT 0
    GLOBAL numpy ndarray | BINPUT 1
    INTEGER 0 | TUPLE1 | BINPUT 2
    GLOBAL _codecs encode | BINPUT 3
        BINUNICODE b | BINPUT 4 | BINUNICODE latin1 | BINPUT 5 | TUPLE2 | BINPUT 6 | REDUCE | BINPUT 7
    TUPLE3 | BINPUT 8 | REDUCE | BINPUT 9

MARK | INTEGER 1
    INTEGER ?rows | INTEGER ?columns | TUPLE2 | BINPUT 10
    GLOBAL numpy dtype | BINPUT 11
        BINUNICODE f8 | BINPUT 12 | NEWFALSE | NEWTRUE | TUPLE3 | BINPUT 13 | REDUCE | BINPUT 14
        MARK | INTEGER 3 | BINUNICODE < | BINPUT 15 | NONE | NONE | NONE | INTEGER -1 | INTEGER -1 | INTEGER 0
        TUPLE | BINPUT 16 | BUILD
    NEWFALSE
    BINGET 3
        BINUNICODE ?content | BINPUT 17 | BINGET 5 | TUPLE2 | BINPUT 18 | REDUCE | BINPUT 19
    TUPLE | BINPUT 20 | BUILD

STOP
"""
"""_reconstruct(ndarray, (0,), encode("b", "latin1")), and then its
__setstate__((1, (rows, columns), dtype("f8") with byte order "<", False (row by row), encode(content, "latin1"))).
The file's three ways to write an integer are called INTEGER here; `?` stands before what may be anything."""

STEPS = [step.strip() for line in PROGRAM.split("\n") for step in line.split("|") if step.strip()]


def read_initial_states(path: Path) -> Float64Array:
    """The 50 initial states of a task: a row is the time (s), then the scene's qpos and qvel. Shape (50, D).

    Raises:
        SimulatorError: the file is not there, torn, or holds anything but such a matrix.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [info for info in archive.infolist() if info.filename.split("/")[-1] == "data.pkl"]
            if len(entries) != 1 or entries[0].file_size > LARGEST:
                sizes = [info.file_size for info in entries]
                raise ValueError(f"it holds {len(entries)} files data.pkl {sizes}, not one of up to {LARGEST} bytes")
            return matrix(archive.read(entries[0]))
    # zipfile answers a torn or tampered archive with any of these.
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise SimulatorError(f"LIBERO's initial states {path}: {error}") from error


def matrix(program: bytes) -> Float64Array:
    """The float64 matrix, shape (50, D), that a pickle would rebuild.

    Raises:
        ValueError: the program does anything else.
    """
    found = list(pickletools.genops(program))
    if len(found) != len(STEPS):
        raise ValueError(f"the pickle has {len(found)} opcodes; that of a float64 matrix has {len(STEPS)}")
    held: dict[str, Any] = {}
    for (opcode, argument, place), wanted in zip(found, STEPS, strict=True):
        name = "INTEGER" if opcode.name in ("BININT1", "BININT2", "BININT") else opcode.name
        if wanted.startswith(f"{name} ?"):
            held[wanted.split("?")[1]] = argument
        elif (name if argument is None else f"{name} {argument}") != wanted:
            raise ValueError(f"the pickle does {name} {argument!r:.60} at byte {place}, not {wanted}")
    if found[-1][2] != len(program) - 1:
        raise ValueError(f"something follows the end of the pickle at byte {found[-1][2]}")
    return _matrix(held["rows"], held["columns"], held["content"].encode("latin1"))


def _matrix(rows: int, columns: int, content: bytes) -> Float64Array:
    if rows != STATES or columns < 1 or len(content) != rows * columns * 8:
        raise ValueError(f"{len(content)} bytes for {rows} x {columns} float64; wanted are {STATES} states")
    states = np.frombuffer(content, "<f8").reshape(rows, columns).astype(np.float64)
    if not np.isfinite(states).all():
        raise ValueError("some numbers are not finite")
    return states
