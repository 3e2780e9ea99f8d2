"""Environments by name. Each is imported only when it is made."""

from collections.abc import Callable
from typing import Any

from rollout_manager.env import Env
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.spec import RobotSpec


def _metaworld(spec: RobotSpec | None, **options: Any) -> Env:
    from rollout_manager.envs.metaworld import MetaWorldEnv

    return MetaWorldEnv(spec, **options)


def _libero(spec: RobotSpec | None, **options: Any) -> Env:
    from rollout_manager.envs.libero.env import LiberoEnv

    return LiberoEnv(spec, **options)


ENVIRONMENTS: dict[str, Callable[..., Env]] = {"metaworld": _metaworld, "libero": _libero}


def make_env(name: str, spec: RobotSpec | None = None, **options: Any) -> Env:
    """The environment called `name` for a robot; without a spec, for the environment's own robot.

    Raises:
        SimulatorError: no such environment, or it cannot be what the spec asks for.
    """
    if name not in ENVIRONMENTS:
        raise SimulatorError(f"environment '{name}' is not one of {', '.join(ENVIRONMENTS)}")
    return ENVIRONMENTS[name](spec, **options)
