"""An episode as arrays: the observations that were acted on, each with the action to be imitated.

A bag's messages go through the same `add_to_buffer` and `ObservationBuffer` as in the live policy node, so an
observation here is the one that the robot acted on.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rollout_manager.episode import EpisodeHeader
from trainer.exceptions import DatasetError
from vla_policy_node.commands import action_from_message, chunk_from_message
from vla_policy_node.messages import add_to_buffer, observation_topics, stamp_of
from vla_policy_node.network.images import resize
from vla_policy_node.observation import Float32Array, ImageArray, Missing, Observation, ObservationBuffer
from vla_policy_node.policy import ActionChunk
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, HUMAN_ACTION

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FeatureArray = npt.NDArray[np.floating[Any]]
"""float16 or float32."""
NOTHING: Float32Array = np.empty(0, np.float32)
Message = tuple[str, int, Any]
"""Topic, log time in ns, message."""


@dataclass(frozen=True)
class EpisodeArrays:
    """T steps of one episode, C cameras of one size, P proprioception fields, A action dimensions."""

    header: EpisodeHeader
    bag_digest: str
    images: ImageArray
    """Shape (T, C, H, W, 3), RGB, resized as for a live network; cameras in the spec's order. May lie on disk."""
    proprioception: Float32Array
    """Shape (T, P), in the spec's order and units."""
    actions: Float32Array
    """Shape (T, A): what is to be imitated, within the spec's limits."""
    stamps: Int64Array
    """Shape (T,): the observations' stamps in ns, rising."""
    instructions: tuple[str, ...]
    """The distinct instructions given during the episode."""
    instruction_index: Int64Array
    """Shape (T,): which of `instructions` held at each step."""
    features: FeatureArray | None = None
    """Shape (T, C, N, W): what a frozen vision encoder makes of `images`, see `trainer.features`; on disk."""

    human: BoolArray | None = None
    """Shape (T,): at which steps a human drove where both could; None where none did."""
    whole: bool = True
    """Whether these are all steps that the bag holds."""

    @property
    def seen(self) -> ImageArray | FeatureArray:
        """What a network is given of the cameras: the features where there are some, else the images."""
        return self.images if self.features is None else self.features

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def is_demonstration(self) -> bool:
        """Whether an expert or a human drove, rather than a policy."""
        return self.header.driver in ("expert", "human")

    def first(self, steps: int) -> "EpisodeArrays":
        """Its first steps alone, at least one; all of them where there are no more, or with 0."""
        if not 0 < steps < len(self):
            return self
        return replace(
            self,
            images=self.images[:steps],
            proprioception=self.proprioception[:steps],
            actions=self.actions[:steps],
            stamps=self.stamps[:steps],
            instruction_index=self.instruction_index[:steps],
            features=None if self.features is None else self.features[:steps],
            human=None if self.human is None else self.human[:steps],
            whole=False,
        )

    def learned(self, by_human: bool) -> BoolArray:
        """Which steps are learned from, shape (T,).

        Args: by_human: of a try that a policy began, those that a human drove.
        """
        if by_human and not self.is_demonstration:
            return np.zeros(len(self), np.bool_) if self.human is None else np.asarray(self.human, np.bool_)
        return np.ones(len(self), np.bool_)

    def run_ends(self, period_ns: int, by_human: bool = False) -> Int64Array:
        """For each step, one past the last step that follows it without a gap, shape (T,).

        Args: by_human: steps that are not learned from (see `learned`) are a gap as well.
        """
        apart = np.diff(self.stamps) > 1.5 * period_ns
        breaks = np.flatnonzero(apart | np.diff(self.learned(by_human))) + 1
        ends = np.append(breaks, len(self))
        return np.asarray(ends[np.searchsorted(breaks, np.arange(len(self)), side="right")], np.int64)


def episode_topics(header: EpisodeHeader, spec: RobotSpec) -> list[str]:
    """The topics that `decode_episode` needs."""
    return [*observation_topics(spec), ACTION, ACTION_CHUNK, HUMAN_ACTION]


def decode_episode(
    header: EpisodeHeader,
    messages: Iterable[Message],
    spec: RobotSpec,
    image_size: tuple[int, int],
    bag_digest: str = "",
) -> EpisodeArrays:
    """Turn an episode's messages, in log order, into arrays.

    A step is an observation that an action answered. Its label is the action sent, or what the newest chunk proposed
    for its tick where the header says `proposed`; where a human drove, what they asked for; where nobody did, since
    the human had let go, there is none. `image_size`: height and width the network takes.

    Raises:
        DatasetError: the episode is another robot's, or no step can be made of it.
        MessageError: a message is not what the spec promises.
    """
    _check_spec(header, spec)
    steps = _Steps(spec, header)
    for topic, _, message in messages:
        steps.add(topic, message)
    kept, actions = steps.labelled()
    texts = tuple(dict.fromkeys(o.instruction for o in kept))
    return EpisodeArrays(
        header=header,
        bag_digest=bag_digest,
        images=_stack(kept, spec, image_size),
        proprioception=np.stack([o.proprioception for o in kept]),
        actions=spec.on_levels(np.clip(actions, spec.action_low, spec.action_high)),
        stamps=np.array([o.stamp_ns for o in kept], np.int64),
        instructions=texts,
        instruction_index=np.array([texts.index(o.instruction) for o in kept], np.int64),
        human=np.array([o.stamp_ns in steps.human for o in kept], np.bool_) if steps.human else None,
    )


@dataclass
class _Steps:
    """Collects observations and actions from messages in whatever order the recorder got them."""

    spec: RobotSpec
    header: EpisodeHeader
    observations: list[Observation] = field(default_factory=list)
    sent: dict[int, Float32Array] = field(default_factory=dict)
    chunks: list[ActionChunk] = field(default_factory=list)
    human: dict[int, Float32Array] = field(default_factory=dict)
    without_observation: int = 0

    def __post_init__(self) -> None:
        self.buffer = ObservationBuffer(self.spec)
        self.buffer.instruction = self.header.instruction.strip()
        self._waiting: deque[int] = deque()
        self._by_sent = self.header.label_source == "sent"

    def add(self, topic: str, message: Any) -> None:
        if topic == ACTION:
            stamp = stamp_of(message)
            if stamp not in self.sent:
                self._waiting.append(stamp)
            # What is labelled by proposals needs only to know when something was sent.
            self.sent[stamp] = action_from_message(self.spec, message)[1] if self._by_sent else NOTHING
        elif topic == HUMAN_ACTION:
            stamp, asked = action_from_message(self.spec, message)
            self.human[stamp] = asked
        elif topic == ACTION_CHUNK:
            self.chunks.append(chunk_from_message(self.spec, message))
        else:
            add_to_buffer(self.buffer, self.spec, topic, message)
        while self._waiting and self._reached(self._waiting[0]):
            self._take(self._waiting.popleft())

    def labelled(self) -> tuple[list[Observation], Float32Array]:
        """The T observations that have an action to imitate, and these, (T, A). Raises: DatasetError: there is none."""
        labels = self._labels()
        kept = [o for o in self.observations if o.stamp_ns in labels]
        if not kept:
            raise DatasetError(
                f"episode '{self.header.episode_id}': no observation with a {self.header.label_source} action; "
                f"{len(self.sent)} actions, {len(self.chunks)} chunks, {self.without_observation} without observation"
            )
        return kept, np.stack([labels[o.stamp_ns] for o in kept])

    def _labels(self) -> dict[int, Float32Array]:
        """The action to imitate at each stamp that has one."""
        if self.human and self.header.driver == "human":
            return self.human
        labels = self.sent
        if not self._by_sent:
            labels = proposed_labels(sorted(self.sent), self.chunks, self.spec.period_ns)
        return {**policy_labels(labels, self.human, [chunk.stamp_ns for chunk in self.chunks]), **self.human}

    def _reached(self, stamp_ns: int) -> bool:
        # An action may be logged before the samples it answers: it waits until every stream has got so far.
        tick = self.buffer.latest_tick()
        return not isinstance(tick, Missing) and tick >= stamp_ns

    def _take(self, stamp_ns: int) -> None:
        observation = self.buffer.assemble_at(stamp_ns)
        if isinstance(observation, Missing) or (self.observations and stamp_ns <= self.observations[-1].stamp_ns):
            self.without_observation += 1
        else:
            self.observations.append(observation)


def proposed_labels(ticks: Sequence[int], chunks: Sequence[ActionChunk], period_ns: int) -> dict[int, Float32Array]:
    """For each tick, what the newest chunk made up to then proposed for it; ticks past that chunk's end have none."""
    ordered = sorted(chunks, key=lambda chunk: chunk.stamp_ns)
    stamps = np.array([chunk.stamp_ns for chunk in ordered], np.int64)
    labels = {}
    for tick, newest in zip(ticks, np.searchsorted(stamps, np.asarray(ticks, np.int64), side="right") - 1, strict=True):
        if newest < 0:
            continue
        chunk = ordered[newest]
        index = round((tick - chunk.stamp_ns) / period_ns)
        if index < len(chunk.actions):
            labels[tick] = chunk.actions[index]
    return labels


def policy_labels(
    labels: Mapping[int, Float32Array], human: Iterable[int], chunks: Iterable[int]
) -> dict[int, Float32Array]:
    """The labels of those ticks at which the policy drove.

    After a human it does so from the first chunk on that it makes when it is handed back; in between nobody does.

    Args: human: stamps at which a human drove; chunks: those of the policy's chunks.
    """
    taken, made = sorted(human), sorted(chunks)
    if not taken:
        return dict(labels)
    found = {}
    for tick, label in labels.items():
        before = bisect_right(taken, tick)
        newest = bisect_right(made, tick)
        if before == 0 or (newest and made[newest - 1] > taken[before - 1]):
            found[tick] = label
    return found


def _check_spec(header: EpisodeHeader, spec: RobotSpec) -> None:
    if header.spec_digest != spec.digest:
        raise DatasetError(
            f"episode '{header.episode_id}' was recorded on robot '{header.robot}' with spec {header.spec_digest}; "
            f"this dataset is for '{spec.name}' with spec {spec.digest}"
        )


def _stack(observations: Sequence[Observation], spec: RobotSpec, image_size: tuple[int, int]) -> ImageArray:
    names = spec.camera_names
    images = np.empty((len(observations), len(names), *image_size, 3), np.uint8)
    for t, observation in enumerate(observations):
        for c, name in enumerate(names):
            images[t, c] = resize(observation.images[name], *image_size)
    return images
