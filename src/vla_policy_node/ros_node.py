"""What the nodes of all packages share of rclpy: messages, QoS, parameters, and a node's main."""

import faulthandler
import gc
import importlib
import os
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
import rclpy
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from vla_policy_node.dds_ports import PortWatch
from vla_policy_node.exceptions import MessageError, PolicyNodeError
from vla_policy_node.messages import MessageMaker
from vla_policy_node.topics import EE_POSE, INSTRUCTION, JOINT_STATES, MESSAGE_TYPES, OUTCOME

LATCHED = (INSTRUCTION, OUTCOME)

PARENT_VARIABLE = "ENCORE_PARENT_PID"
"""Set by whoever starts a node as its child: the node ends when that process does."""

PORTS_PERIOD_S = 0.5
"""How often a node looks for ports of dead processes, see `dds_ports`."""


@cache
def message_class(type_name: str) -> Any:
    """The Python class of a message or service type such as `sensor_msgs/msg/Image`.

    Raises:
        MessageError: no such type is installed.
    """
    try:
        package, kind, name = type_name.split("/")
        return getattr(importlib.import_module(f"{package}.{kind}"), name)
    except (ValueError, ImportError, AttributeError) as error:
        raise MessageError(
            f"message type '{type_name}' is not installed or not of the form package/msg/Name"
        ) from error


def _plain(value: Any) -> Any:
    """Arrays in the one form that rclpy takes over without looking at each element; a byte as rclpy has it."""
    if isinstance(value, np.uint8):
        return bytes([value])
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == np.float64:
        return array("d", value.tobytes())
    return array("B", value.tobytes()) if value.dtype == np.uint8 else value.tolist()


def rclpy_maker() -> MessageMaker:
    """Makes rclpy messages; arrays become what rclpy takes at no cost (facts: an ndarray costs 6-39 ms)."""

    def make(type_name: str, **fields: Any) -> Any:
        return message_class(type_name)(**{name: _plain(value) for name, value in fields.items()})

    return make


def topic_qos(topic: str, lockstep: bool, depth: int = 10) -> QoSProfile:
    """The QoS suited to a topic.

    Latched topics keep their last message for late joiners. In lockstep nothing may be lost, or both sides wait for
    ever. In real time a late sample is worth less than the next one, and a best-effort reader takes every publisher.
    """
    if topic in LATCHED:
        return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    sensor = topic in (JOINT_STATES, EE_POSE) or topic not in MESSAGE_TYPES
    reliability = ReliabilityPolicy.BEST_EFFORT if sensor and not lockstep else ReliabilityPolicy.RELIABLE
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=reliability)


def settable() -> QoSOverridingOptions:
    """Lets parameters `qos_overrides.<topic>.<publisher|subscription>.<policy>` override a topic's QoS."""
    return QoSOverridingOptions.with_default_policies()


def declare(node: Node, parameters: Mapping[str, tuple[Any, str]]) -> None:
    """Declare parameters given as name -> (default, description); the default fixes the type."""
    for name, (default, description) in parameters.items():
        node.declare_parameter(name, default, ParameterDescriptor(description=description))


def take_waiting(subscription: Any) -> Iterator[Any]:
    """The messages that wait in a subscription's queue now.

    The executor takes one message a turn and looks at every entity of the node in each, a quarter of a millisecond.
    Streams that arrive together are cheaper, and complete sooner, taken in the callback of the first.
    """
    with subscription.handle:
        while (taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)) is not None:
            yield taken[0]


class ParameterError(PolicyNodeError):
    """A node's parameter has a value that is not one of the valid ones."""


def check_choices(node: Node, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises: ParameterError: a parameter's value is not among its choices."""
    for name, valid in choices.items():
        if (value := node.get_parameter(name).value) not in valid:
            raise ParameterError(f"parameter {name} '{value}' is not one of {', '.join(valid)}")


def result(reason: str) -> Any:
    """What a parameter callback answers: accepted where there is no reason against it."""
    return SetParametersResult(successful=not reason, reason=reason)


def subscribers(node: Node, topic: str) -> list[str]:
    """Names of the nodes that listen to a topic, as far as discovered."""
    return sorted({info.node_name for info in node.get_subscriptions_info_by_topic(topic)})


def publishers(node: Node, topic: str) -> list[str]:
    """Names of the nodes that publish a topic, one entry a publisher, as far as discovered."""
    return sorted(info.node_name for info in node.get_publishers_info_by_topic(topic))


class Closable(Protocol):
    """A running node's shell."""

    node: Node

    def close(self) -> None:
        """Stop threads and free what the shell holds; called once, also after an error."""
        ...


def run_node(build: Callable[[], Closable], errors: tuple[type[Exception], ...]) -> int:
    """A node's whole life: build its shell, spin it in one thread until it is told to end.

    Args:
        build: makes the shell; rclpy is initialised by then.
        errors: what the shell raises on purpose; told in one line, without a traceback.

    Returns:
        The process's exit status: 0 after a stop from outside, 1 after an error.
    """
    faulthandler.enable()  # A crash in a library says where Python was.
    rclpy.init()
    shell: Closable | None = None
    executor = SingleThreadedExecutor()
    try:
        shell = build()
        settle_garbage()
        executor.add_node(shell.node)
        end_with_parent(shell.node)
        drop_dead_ports(shell.node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except errors as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except RuntimeError:
        # A stop that comes while the node is being built: rclpy's calls fail for want of a context.
        if rclpy.ok():
            raise
        return 0
    finally:
        if shell is not None:
            shell.close()
        executor.shutdown(timeout_sec=1.0)
        if shell is not None:
            shell.node.destroy_node()  # Else its 64 MB of shared memory stay behind when the process is gone.
        rclpy.try_shutdown()
    return 0


def settle_garbage() -> None:
    """Collect garbage now, and never look again at what is left.

    A node that has imported torch keeps 200,000 objects. Python's collector looks at all of them now and then, for
    some 50 ms in which no thread of the process goes on: more than a period. What is made later it goes on looking at.
    """
    gc.collect()
    gc.freeze()


def end_with_parent(node: Node) -> None:
    """Nodes started as children must not outlive a parent that was killed and could not stop them."""
    parent = int(os.environ.get(PARENT_VARIABLE, "0"))
    if not parent:
        return

    def check() -> None:
        if os.getppid() != parent:
            raise ExternalShutdownException

    node.create_timer(1.0, check)


def drop_dead_ports(node: Node) -> None:
    """A node must not go on sending to a process that was killed when another has taken that one's place."""
    node.create_timer(PORTS_PERIOD_S, PortWatch().look, clock=Clock(clock_type=ClockType.STEADY_TIME))


def exit_process(status: int) -> None:
    """End the process at once where only daemon threads are left; else the interpreter ends it as usual.

    Fast DDS's own threads sometimes outlive the context; joining them at interpreter exit can take seconds.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() == 1:
        os._exit(status)
    sys.exit(status)
