"""Lighter models to look at: visual meshes of fewer faces, smaller textures. What is touched stays as it is.

Software rendering is bound by triangles: stock, an image of 128 px takes some 50 ms, most of it for details smaller
than a pixel. Each file is made lighter once and kept in a cache under the hash of its content, whole or not at all,
so that any number of processes may fill the cache at a time.
"""

import hashlib
import os
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from rollout_manager.envs.libero.meshes import read_mesh, simplify, write_obj
from rollout_manager.envs.libero.package import cache_folder
from rollout_manager.exceptions import SimulatorError

FACES_PER_METRE = 2500
"""How many faces a mesh that is only seen may have, by the length of its bounding box's diagonal,"""
FEWEST_FACES, MOST_FACES = 100, 600
"""within these."""
PIXELS = 128
"""Most pixels of a texture's side."""
RECIPE = f"light-1-{FACES_PER_METRE}-{FEWEST_FACES}-{MOST_FACES}-{PIXELS}"
"""Names what this file does to a model: another recipe fills another folder, and has another name in results."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def lighten(model: str, cache: Path | None = None) -> str:
    """A robosuite model whose visual meshes and textures are replaced by lighter files.

    Args:
        model: MJCF with absolute file names.
        cache: folder of the lighter files; without it, one in Encore's cache.

    Raises:
        SimulatorError: a file that the model names is missing or cannot be read, or the cache cannot be written.
    """
    root = ET.fromstring(model)
    folder = (cache_folder() / "libero" if cache is None else cache) / RECIPE
    touched = {geom.get("mesh") for geom in root.iter("geom") if not _only_seen(geom)}
    textured = _textured_meshes(root)
    for mesh in root.iter("mesh"):
        if mesh.get("file") and mesh.get("name") not in touched:
            scale = mesh.get("scale", "1 1 1")
            make = partial(_light_mesh, scale=scale, textured=mesh.get("name") in textured)
            key = f"{scale} {make.keywords['textured']}"
            mesh.set("file", str(_lighter(Path(mesh.get("file", "")), folder, key, ".obj", make)))
    for texture in root.iter("texture"):
        if texture.get("file", "").endswith(".png"):
            texture.set("file", str(_lighter(Path(texture.get("file", "")), folder, "", ".png", _light_texture)))
    return ET.tostring(root, encoding="unicode")


def check_files(model: str) -> str:
    """The same model. Raises: SimulatorError: a mesh or texture that it names is missing."""
    for element in ET.fromstring(model).iter():
        if element.tag in ("mesh", "texture") and (name := element.get("file")) and not Path(name).is_file():
            raise SimulatorError(f"LIBERO's assets: {element.tag} '{element.get('name')}': {name} is missing")
    return model


def _only_seen(geom: ET.Element) -> bool:
    """It touches nothing and weighs nothing: robosuite takes inertia from group 0 alone, which is the default."""
    return geom.get("contype") == geom.get("conaffinity") == "0" and geom.get("group", "0") != "0"


def _textured_meshes(root: ET.Element) -> set[str | None]:
    materials = {material.get("name") for material in root.iter("material") if material.get("texture")}
    return {geom.get("mesh") for geom in root.iter("geom") if geom.get("material") in materials}


def _lighter(source: Path, folder: Path, key: str, suffix: str, make: Callable[[Path, bytes], bytes]) -> Path:
    """A lighter file in `folder`, made on first use, or the source itself where it is light already.

    Args:
        key: what else than the source's content decides what `make` gives.
    """
    try:
        content = source.read_bytes()
        name = hashlib.blake2b(key.encode() + b"\n" + content, digest_size=16).hexdigest()
        target = folder / (name + suffix)
        if not target.exists():
            _write_whole(target, make(source, content))
        # An empty file says that the source is light enough.
        return target if target.stat().st_size else source
    except (OSError, ValueError) as error:
        raise SimulatorError(f"LIBERO's assets: no lighter {source}: {error}") from error


def _light_mesh(source: Path, content: bytes, *, scale: str, textured: bool) -> bytes:
    mesh = read_mesh(source)
    diagonal = np.linalg.norm(np.ptp(mesh.vertices, axis=0) * np.fromstring(scale, sep=" "))
    faces = int(np.clip(FACES_PER_METRE * diagonal, FEWEST_FACES, MOST_FACES))
    if len(mesh.faces) <= faces:
        return b""
    return write_obj(simplify(mesh if textured else mesh.without_texture(), faces))


def _light_texture(source: Path, content: bytes) -> bytes:
    import cv2

    if not content.startswith(PNG_SIGNATURE):
        raise ValueError("it is no PNG")
    width, height = struct.unpack(">II", content[16:24])
    if max(width, height) <= PIXELS:
        return b""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("it cannot be decoded")
    scale = PIXELS / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    done, encoded = cv2.imencode(".png", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    if not done:
        raise ValueError("its smaller copy cannot be encoded")
    return bytes(encoded.tobytes())


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
