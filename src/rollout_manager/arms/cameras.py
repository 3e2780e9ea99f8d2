"""Cameras as they are on a robot: late, not always equally late, and now and then without a picture.

They render on a thread of their own, from what can be seen of the arm: a picture takes longer than a control period.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rollout_manager.arms.arm import Arm, Sight
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import ImageArray
from vla_policy_node.spec import CameraSpec

Publish = Callable[[str, int, ImageArray], None]
"""Camera, stamp in ns of when the picture was taken, RGB image (height, width, 3)."""


@dataclass
class CameraFaults:
    """What is wrong with the cameras; may be changed while they run."""

    delay_s: float = 0.0
    """From the moment that a picture shows to its publication."""
    jitter_s: float = 0.0
    """Standard deviation of that delay; it is never shorter than the time that rendering takes."""
    dropout: float = 0.0
    """Share of the pictures that are never published."""
    frozen: bool = False
    """The last picture is published again and again, with new stamps."""
    unplugged: bool = False
    """Nothing is published."""


class Cameras:
    """Publishes all cameras of a model at a rate, until it is closed."""

    def __init__(
        self,
        model: str,
        cameras: tuple[CameraSpec, ...],
        rate_hz: float,
        sight: Callable[[], Sight],
        clock: Callable[[], int],
        publish: Publish,
        faults: CameraFaults,
        seed: int = 0,
    ) -> None:
        """Args: sight: of the arm that is shown; clock: time in ns; publish: called in the thread."""
        self._arm = Arm(model, cameras)
        self._period_s = 1 / rate_hz
        self._sight, self._clock, self._publish, self._faults = sight, clock, publish, faults
        self._random = np.random.default_rng(seed)
        self._last: dict[str, ImageArray] = {}
        self._ends = threading.Event()
        self.failure = ""
        """Why no more pictures come; empty while they do."""
        self._thread = threading.Thread(target=self._run, name="cameras", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the cameras."""
        self._ends.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._ends.wait(max(0.0, due - time.monotonic())):
                due = max(due + self._period_s, time.monotonic())  # What is missed is not made up for.
                self._take()
        except (SimulatorError, RuntimeError) as error:  # The thread's end: the arm goes on, blind.
            self.failure = str(error)
        finally:
            self._arm.close()

    def _take(self) -> None:
        stamp_ns, started, faults = self._clock(), time.monotonic(), self._faults
        if not (faults.frozen and self._last):
            self._last = self._arm.images_of(self._sight())
        late = self._random.normal(faults.delay_s, faults.jitter_s) - (time.monotonic() - started)
        if self._random.random() < faults.dropout or faults.unplugged or self._ends.wait(max(0.0, late)):
            return
        for name, image in self._last.items():
            self._publish(name, stamp_ns, image)
