"""Where Encore's own configuration files are, installed or in a checkout."""

import os
import sys
from pathlib import Path

import yaml

from vla_policy_node.exceptions import SpecError


def config_dir() -> Path:
    """The folder `config/`: of the checkout, else of the installed package's share folder.

    Raises:
        SpecError: neither exists; the message lists where it was looked for.
    """
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    shares = [prefix / "share" / "encore" / "config" for prefix in [*prefixes, Path(sys.prefix)]]
    candidates = [Path(__file__).resolve().parents[2] / "config", *shares]
    for folder in candidates:
        if (folder / "robots").is_dir():
            return folder
    raise SpecError(f"no config folder; looked in {', '.join(map(str, candidates))}")


def find_preset(
    what: str, name_or_path: str | Path, folder: str, error: type[Exception], suffix: str = ".yaml"
) -> Path:
    """The file at a path, or the one called so in `config/<folder>/`.

    Args:
        what: what the file describes, for the message.
        error: raised where there is none; its message lists the names.
        suffix: of the files in that folder.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    presets = config_dir() / folder
    path = presets / f"{name_or_path}{suffix}"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in presets.glob(f"*{suffix}")))
        raise error(f"{what} '{name_or_path}': neither a file nor one of {known}")
    return path


def read_yaml(path: Path, error: type[Exception]) -> object:
    """What a YAML file holds; raises `error` where it is no YAML."""
    try:
        content: object = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise error(f"{path}: not readable as YAML: {problem}") from problem
    return content
