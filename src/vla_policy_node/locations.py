"""Where Encore's own configuration files are, installed or in a checkout."""

import os
import sys
from pathlib import Path

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
