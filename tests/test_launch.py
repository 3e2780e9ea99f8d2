"""What launch files make of their arguments and of the environment, with ROS's own `launch` where there is one."""

import importlib.util
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is part of a ROS installation and in no package index")

ROOT = Path(__file__).resolve().parents[1]
DOMAIN, DISCOVERY = "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"


def environment_of(launch_file: str, shell: dict[str, str], **arguments: str) -> dict[str, str]:
    """What nodes find in their environment, if the shell has set only what is given of `DOMAIN` and `DISCOVERY`."""
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable

    spec = importlib.util.spec_from_file_location("launch_file", ROOT / "launch" / launch_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    without = {name: value for name, value in os.environ.items() if name not in (DOMAIN, DISCOVERY)}
    with mock.patch.dict(os.environ, {**without, **shell}, clear=True):
        context: Any = LaunchContext()
        context.launch_configurations.update(arguments)
        for entity in module.generate_launch_description().entities:
            if isinstance(entity, (DeclareLaunchArgument, SetEnvironmentVariable)):
                entity.execute(context)
        return dict(os.environ)


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "launch").glob("*.launch.py"))])
def test_nodes_are_on_the_domain_of_the_shell_unless_another_is_given(name: str) -> None:
    assert environment_of(name, {}, robot="panda")[DOMAIN] == "0"
    assert environment_of(name, {DOMAIN: "42"}, robot="panda")[DOMAIN] == "42"
    assert environment_of(name, {DOMAIN: "42"}, robot="panda", domain="7")[DOMAIN] == "7"


@pytest.mark.parametrize(("name", "usual"), [("robot.launch.py", "SUBNET"), ("replay.launch.py", "LOCALHOST")])
def test_a_shell_may_say_how_far_nodes_look_for_each_other(name: str, usual: str) -> None:
    assert environment_of(name, {}, robot="panda")[DISCOVERY] == usual
    assert environment_of(name, {DISCOVERY: "OFF"}, robot="panda")[DISCOVERY] == "OFF"
    assert environment_of(name, {DISCOVERY: "OFF"}, robot="panda", discovery="SUBNET")[DISCOVERY] == "SUBNET"
