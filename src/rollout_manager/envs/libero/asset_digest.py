"""What a folder of LIBERO's assets holds, in one short name that stands beside every result made with it."""

import hashlib
import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from rollout_manager.envs.libero.package import ASSET_FOLDERS, cache_folder

DIGITS = 16


def asset_digest(folder: Path) -> str:
    """SHA-256 (first 16 hex digits) over names and contents of all files that scenes may load.

    Hundreds of megabytes may have to be read, so the result is kept in Encore's cache as long as no file changes its
    size or its time.
    """
    files = sorted(path for name in ASSET_FOLDERS for path in (folder / name).rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    states = [path.stat() for path in files]
    listing = [f"{folder.resolve()}", *(f"{n} {s.st_size} {s.st_mtime_ns}" for n, s in zip(names, states, strict=True))]
    kept = cache_folder() / "libero" / "digests" / _short("\n".join(listing).encode())
    if kept.is_file() and len(digest := kept.read_text()) == DIGITS:
        return digest
    content = hashlib.sha256()
    for name, path in zip(names, files, strict=True):
        content.update(f"{name} {_short(path.read_bytes())}\n".encode())
    digest = content.hexdigest()[:DIGITS]
    kept.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=kept.parent, delete=False) as file:
        file.write(digest)
    os.replace(file.name, kept)
    return digest


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]
