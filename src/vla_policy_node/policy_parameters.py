"""The policy node's parameters: defaults, meanings, and which values and changes are refused."""

from typing import Any, get_args

from vla_policy_node.chunking import EXECUTORS
from vla_policy_node.limit_switches import LimitMode

PARAMETERS: dict[str, tuple[Any, str]] = {
    "robot": ("metaworld", "name in config/robots/, or the path of a robot's YAML file"),
    "checkpoint": ("", "folder of the checkpoint; set it again to swap policies between episodes"),
    "autostart": (True, "configure and activate at start-up instead of waiting for a lifecycle manager"),
    "mode": ("lockstep", "lockstep: a command for every observation; real_time: one every period, holding if need be"),
    "execute": ("replan", "how chunks are executed: replan, ensemble or real_time_chunking"),
    "execute_every": (
        0,
        "actions executed of a chunk before the next one is asked for; 0: all of them, real_time_chunking: half",
    ),
    "ensemble_decay": (0.01, "ensemble: weight decay a step of age"),
    "limits": (
        "clamp",
        "where the robot's file does not say it by limit: clamp: an action beyond its limits is moved to them; "
        "reject: the robot holds",
    ),
    "device": ("cpu", "where the network runs: cpu, cuda, ..."),
    "episode_seed": (0, "fixes all that is random in the next episode; taken up by ~/enable"),
    "exploration": (
        0.0,
        "how far the next episode tries something else: noise on its chunks, or a shifted aim, as the robot says",
    ),
    "estop_within_s": (0.0, "how often /estop must be heard, so that a cut cable stops the robot; 0: it need not be"),
    "deadman_button": (-1, "button of /joy that must be held while the policy drives; -1: none"),
    "deadman_within_s": (0.5, "how often /joy must be heard then"),
    "standstill": (0.0, "highest speed of a joint, its unit a second, at which ~/enable is accepted; 0: any"),
    "driver": ("policy", "who drives the next episode: policy, until a human takes over, or human; see operating.md"),
    "human_within_s": (0.2, "how often /teleop/action must be heard from a human who drives; else the arm holds"),
    "home_timeout_s": (20.0, "how long the way home may take"),
    "start_stamp_ns": (0, "samples stamped earlier belong to an earlier episode and are passed over"),
}
WITHIN = ("human_within_s", "home_timeout_s")
STOPS = ("estop_within_s", "deadman_button", "deadman_within_s", "standstill")
FIXED = ("robot", "mode", "limits", "device", "autostart", "human_within_s", *STOPS)
"""What is read once, when the node is configured."""
CHOICES = {
    "mode": ("lockstep", "real_time"),
    "execute": tuple(EXECUTORS),
    "limits": get_args(LimitMode),
    "driver": ("policy", "human"),
}


def refusal(name: str, value: Any) -> str:
    """Why a parameter may not have this value; empty where it may."""
    if name in CHOICES and value not in CHOICES[name]:
        return f"{name} '{value}' is not one of {', '.join(CHOICES[name])}"
    if name == "exploration" and not 0.0 <= value <= 2.0:
        return f"exploration {value} is not in [0, 2]"
    if name in STOPS and not value >= (-1 if name == "deadman_button" else 0):
        return f"{name} {value} is negative"
    if name in WITHIN and not value > 0:
        return f"{name} {value} is not above 0"
    if name == "execute_every" and value < 0:
        return f"execute_every {value} is negative; 0 means all of a chunk"
    return ""
