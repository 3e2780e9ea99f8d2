"""Environments by name. Each is imported only when it is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rollout_manager.env import Env
from rollout_manager.envs.ruled import RuledEnv
from rollout_manager.exceptions import SimulatorError
from rollout_manager.success_rules import load_rules
from vla_policy_node.spec import RobotSpec


def _metaworld(spec: RobotSpec | None, **options: Any) -> Env:
    from rollout_manager.envs.metaworld import MetaWorldEnv

    return MetaWorldEnv(spec, **options)


def _libero(spec: RobotSpec | None, **options: Any) -> Env:
    from rollout_manager.envs.libero.env import LiberoEnv

    return LiberoEnv(spec, **options)


def _panda(spec: RobotSpec | None, **options: Any) -> Env:
    from rollout_manager.envs.panda import PandaEnv

    return PandaEnv(spec, **options)


ENVIRONMENTS: dict[str, Callable[..., Env]] = {"metaworld": _metaworld, "libero": _libero, "panda": _panda}


def make_env(name: str, spec: RobotSpec | None = None, rules: str = "", **options: Any) -> Env:
    """The environment called `name` for a robot; without a spec, for the environment's own robot.

    Args:
        rules: a YAML file of success rules (see `success_rules.py`) in place of the simulator's own.

    Raises:
        SimulatorError: no such environment, or it cannot be what the spec asks for, or the rules are not valid.
    """
    if name not in ENVIRONMENTS:
        raise SimulatorError(f"environment '{name}' is not one of {', '.join(ENVIRONMENTS)}")
    if not rules:
        return ENVIRONMENTS[name](spec, **options)
    loaded = load_rules(Path(rules))  # Before anything is built.
    return RuledEnv(ENVIRONMENTS[name](spec, **options), loaded)
