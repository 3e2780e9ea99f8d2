"""The installed LIBERO packages and the folder of its assets: found, checked, imported without their side effects.

As they come, importing them asks a question on stdin, opens a log file that another user of the machine may own,
writes compiled code beside their sources, and building a scene downloads 422 MB. Here they do none of that.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from rollout_manager.exceptions import SimulatorError

INSTALL = "make libero"
DOWNLOAD = "make libero-assets"
PACKAGES: Mapping[str, str] = {"hf-libero": "0.1.4", "robosuite": "1.4.0", "bddl": "1.0.1"}
"""What is needed, and the only versions that fit together: robosuite 1.5 has another controller and other models."""

SCORED_MUJOCO = "3.3.0"
"""The MuJoCo that published scores of LIBERO hold for."""

ASSETS_VARIABLE = "ENCORE_LIBERO_ASSETS"
ASSET_FOLDERS = (
    "articulated_objects",
    "scenes",
    "stable_hope_objects",
    "stable_scanned_objects",
    "textures",
    "turbosquid_objects",
)
"""What a folder of LIBERO's assets must hold."""


@dataclass(frozen=True)
class LiberoPackage:
    """LIBERO, imported and ready to build scenes."""

    root: Path
    """Folder of the package `libero.libero`: task descriptions, initial states, code."""
    versions: Mapping[str, str]
    """Of hf-libero, robosuite, bddl and mujoco."""
    problems: Mapping[str, Any]
    """LIBERO's class for each kind of scene, by the BDDL problem's name in lower case."""

    def use_assets(self, folder: Path) -> None:
        """Have the scenes that are built from now on take their models from `folder`."""
        # hf-libero 0.1.4 passes over the assets key of its configuration; this is what decides.
        libero: Any = import_module("libero.libero")
        libero._assets_path_cache = str(folder)


@dataclass(frozen=True)
class AssetFolder:
    """A complete folder of LIBERO's assets."""

    path: Path
    rule: str
    """Why it is this one, in words."""


def find_assets(folder: Path | None = None) -> Path:
    """The folder with LIBERO's models and textures.

    Args:
        folder: the one to use; without it the one that ENCORE_LIBERO_ASSETS names, else the package's own download.

    Raises:
        SimulatorError: there is none, or the one that is named lacks something.
    """
    return locate_assets(folder).path


def locate_assets(folder: Path | None = None) -> AssetFolder:
    """As `find_assets`, with the rule that decided. Raises: SimulatorError: as there."""
    named = os.environ.get(ASSETS_VARIABLE, "")
    if folder is not None:
        return AssetFolder(_complete(folder, "configuration"), "named in the configuration")
    if named:
        return AssetFolder(_complete(Path(named), ASSETS_VARIABLE), f"named by {ASSETS_VARIABLE}")
    places = downloads()
    for place in places:
        if place.is_dir():
            return AssetFolder(_complete(place, "the package's own download"), "the package's own download")
    raise SimulatorError(
        f"LIBERO's assets are not there: {ASSETS_VARIABLE} names no folder, and there is none in "
        f"{' or '.join(map(str, places))}. Set {ASSETS_VARIABLE} to a folder that has them, "
        f"or download them (422 MB): {DOWNLOAD}"
    )


def downloads() -> tuple[Path, ...]:
    """Where hf-libero keeps assets, in its own order."""
    own = Path.home() / ".cache" / "libero" / "assets"
    try:
        return package_root() / "assets", own
    except SimulatorError:
        return (own,)


def missing_assets(folder: Path) -> tuple[str, ...]:
    """What a folder lacks to be one of LIBERO's assets."""
    return tuple(name for name in ASSET_FOLDERS if not (folder / name).is_dir())


def installed_versions() -> dict[str, str | None]:
    """Version of each package that is needed; None: it is not installed."""
    return {name: _version(name) for name in (*PACKAGES, "mujoco")}


def package_root() -> Path:
    """Folder of the installed package `libero.libero`; nothing is imported.

    Raises:
        SimulatorError: LIBERO's packages are not installed, or are of versions that do not fit together.
    """
    found = installed_versions()
    if missing := [name for name in PACKAGES if found[name] is None]:
        raise SimulatorError(f"LIBERO is not installed ({', '.join(missing)} not found); install it with: {INSTALL}")
    for name, wanted in PACKAGES.items():
        if found[name] != wanted:
            raise SimulatorError(f"LIBERO needs {name} {wanted}, not {found[name]}; mend it with: {INSTALL}")
    return Path(str(distribution("hf-libero").locate_file("libero/libero")))


def mujoco_effect(installed: str) -> str:
    """What is known to be different with this MuJoCo from the one that scores were measured with; empty: nothing."""
    if installed == SCORED_MUJOCO:
        return ""
    numbers = tuple(int(part) for part in installed.split(".")[:3] if part.isdigit())
    if numbers >= (3, 4):
        return "from 3.4.0 on libero_spatial/5 was seen to drop from 98 to 12 %, and libero_object's floors are darker"
    if numbers >= (3, 3, 3):
        return "from 3.3.3 on libero_object's floors are darker"
    return "no scores are known with it"


@cache
def load_package() -> LiberoPackage:
    """Import LIBERO: it takes seconds the first time, nothing afterwards.

    Raises:
        SimulatorError: it is not installed, has other versions than fit together, or cannot be imported.

    Warns:
        UserWarning: MuJoCo is not the version that scores were measured with.
    """
    from rollout_manager.envs.rendering import import_mujoco

    root = package_root()
    versions = {name: found for name, found in installed_versions().items() if found}
    import_mujoco()  # First: it chooses OpenGL's loader, and says clearly what is missing.
    if effect := mujoco_effect(versions["mujoco"]):
        warnings.warn(
            f"LIBERO's scores hold for MuJoCo {SCORED_MUJOCO}; this is {versions['mujoco']}: {effect}", stacklevel=2
        )
    _answer_beforehand(root)
    try:
        _import_robosuite()
        problems: Mapping[str, Any] = import_module("libero.libero.envs").TASK_MAPPING
    # robosuite looks at the environment too, and answers a GPU number that it does not like with an assertion.
    except (ImportError, AssertionError, AttributeError, OSError, RuntimeError) as error:
        raise SimulatorError(f"LIBERO cannot be imported: {error}; if a package is missing: {INSTALL}") from error
    return LiberoPackage(root, versions, problems)


def cache_folder() -> Path:
    """Where Encore keeps what can be made again: `encore/` in XDG_CACHE_HOME, which is ~/.cache by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "encore"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _complete(folder: Path, who: str) -> Path:
    """The folder, absolute. Raises: SimulatorError: it is none of LIBERO's assets."""
    if not folder.is_dir():
        raise SimulatorError(f"LIBERO's assets: {folder} ({who}) is not a folder")
    if missing := missing_assets(folder):
        raise SimulatorError(
            f"LIBERO's assets: {folder} ({who}) lacks {', '.join(missing)}; it must hold {', '.join(ASSET_FOLDERS)}"
        )
    if any(folder.glob(".cache/huggingface/download/**/*.incomplete")):
        raise SimulatorError(f"LIBERO's assets: {folder} ({who}) is half downloaded; go on with: {DOWNLOAD}")
    return folder.resolve()


def _answer_beforehand(root: Path) -> None:
    """Put down the file whose absence makes `import libero.libero` ask on stdin where datasets are to go.

    It always stands in a folder of ours: one that the user has may point to another installation's files.
    """
    folder = cache_folder() / "libero"
    keys = {"bddl_files": "bddl_files", "init_states": "init_files", "datasets": "../datasets", "assets": "assets"}
    lines = [f"benchmark_root: {root}", *(f"{key}: {root / name}" for key, name in keys.items()), ""]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(folder / "config.yaml", "\n".join(lines))
    except OSError as error:
        raise SimulatorError(f"cannot write {folder}: {error}; set XDG_CACHE_HOME to a folder of yours") from error
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)
    # robosuite has numba keep compiled code, by default in site-packages.
    if not os.environ.get("NUMBA_CACHE_DIR"):
        os.environ["NUMBA_CACHE_DIR"] = str(cache_folder() / "numba")


def _write_whole(path: Path, text: str) -> None:
    """Write a file that several processes may be reading or writing too."""
    if path.is_file() and path.read_text() == text:
        return
    with NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def _import_robosuite() -> None:
    """Import robosuite without its log file in /tmp, its warnings, and its own choice of a renderer."""
    if "robosuite" in sys.modules:
        return
    folder = Path(str(distribution("robosuite").locate_file("robosuite")))
    spec = spec_from_file_location("robosuite.macros", folder / "macros.py")
    assert spec is not None
    assert spec.loader is not None  # Both hold for any path that ends in .py.
    # All of robosuite reads these settings while it is being imported, so they have to be there before it.
    macros: Any = module_from_spec(spec)
    spec.loader.exec_module(macros)
    macros.FILE_LOGGING_LEVEL = None
    macros.CONSOLE_LOGGING_LEVEL = "ERROR"
    macros.MUJOCO_GPU_RENDERING = False
    sys.modules["robosuite.macros"] = macros
    robosuite: Any = import_module("robosuite")
    robosuite.macros = macros
