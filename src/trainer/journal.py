"""Which stages of a long run are finished, and what each gave: a stage that is finished is never done again.

A run belongs to one process, and another may help it: whoever comes to a stage first does it, the other waits.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from trainer.exceptions import ConfigError, TrainingError

Output: TypeAlias = dict[str, Any]
"""What a stage gives: plain JSON values."""

WHERE_NOT_WHAT = ("workers", "graphs", "device", "threads", "log_every", "save_every", "cache_features")
"""Settings of the machine, not of the run: a run goes on elsewhere with others. A single training that was begun holds
to what its numbers depend on by itself."""


MAY_GROW = ("iterations",)
"""Settings that a run may be given more of later: it goes on where it ended."""

OF_THE_END = ("evaluate ", "zero-shot ")
"""How the names of stages begin that are done once nothing is trained any more. Where a run has grown they are done
again; tries of the same checkpoint are not."""


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    name: str
    output: Output
    seconds: float
    """Time it took in the session that finished it."""
    finished: str
    """UTC, ISO 8601."""


class Journal(AbstractContextManager["Journal"]):
    """The finished stages of the run in one folder.

    Written anew and renamed after every stage, so a kill leaves the journal of before or of after it.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], helping: bool = False, say: Callable[[str], None] = print
    ) -> None:
        """Open the folder's journal, or begin one.

        Args:
            helping: beside the process that the run belongs to; each of the two kinds once.
            say: is told when a stage is waited for that the other process does.

        Raises:
            ConfigError: the folder holds a run of another configuration; the message says what differs.
            TrainingError: another process of this kind works on it, or the journal is not readable.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "journal.json"
        self._locks = folder / "locks"
        self._locks.mkdir(exist_ok=True)
        self._say = say
        who = "helper" if helping else "run"
        self._lock = (self._locks / who).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise TrainingError(
                f"'{folder}' is in use by another {who}: wait for it, or choose another output"
            ) from error
        try:
            self._config: Output = json.loads(json.dumps(config))
            with self._alone("journal"):
                self._stages = self._open()
        except (ConfigError, TrainingError):
            self._lock.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have the folder."""
        self._lock.close()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Finished stages in the order in which they were finished."""
        return tuple(self._stages.values())

    def output(self, name: str) -> Output | None:
        """What the stage gave, or None while it is not finished."""
        stage = self._stages.get(name)
        return None if stage is None else stage.output

    def run(self, name: str, work: Callable[[], Output]) -> Output:
        """What the stage gave, done now unless it is finished; waited for where another process is at it."""
        if (done := self.output(name)) is not None:
            return done
        with self._alone(name.replace(" ", "_")):
            self._stages |= _read_stages(self.path)
            if (done := self.output(name)) is not None:
                return done
            begun = time.monotonic()
            output: Output = json.loads(json.dumps(work()))
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            stage = Stage(name, output, round(time.monotonic() - begun, 1), now)
            with self._alone("journal"):
                self._stages = {**_read_stages(self.path), name: stage}
                self._write()
        return output

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Within this, no other process is at it."""
        with (self._locks / what).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"waiting for {what}, which another process is at")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open(self) -> dict[str, Stage]:
        if not self.path.exists():
            self._stages = {}
            self._write()
            return {}
        journal = read_journal(self.path)
        changes = differences(journal["config"], self._config)
        grown = [key for key in MAY_GROW if key in self._config and self._config[key] > journal["config"].get(key, 0)]
        if changes := [change for change in changes if _leaf(change) not in (*WHERE_NOT_WHAT, *grown)]:
            raise ConfigError(
                f"'{self.path.parent}' holds a run of another configuration: {'; '.join(changes)}. "
                "Go on with the old one, or choose another output folder"
            )
        stages = _read_stages(self.path)
        if grown:
            self._stages = {name: stage for name, stage in stages.items() if not name.startswith(OF_THE_END)}
            self._write()
            return self._stages
        return stages

    def _write(self) -> None:
        content = {"config": self._config, "stages": [asdict(stage) for stage in self._stages.values()]}
        write_json(self.path, content)


def _leaf(change: str) -> str:
    """Of what `differences` says, the last part of the key."""
    return change.split(":")[0].rpartition(".")[2]


def _read_stages(path: Path) -> dict[str, Stage]:
    return {stage["name"]: Stage(**stage) for stage in read_journal(path)["stages"]}


def read_journal(path: Path) -> Output:
    """The journal's content: `config` and `stages`. Raises: TrainingError: not a journal."""
    try:
        content: Output = json.loads(path.read_text())
        for stage in content["stages"]:
            Stage(**stage)
        content["config"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"'{path}' is not the journal of a run: {error!r}") from error
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step: a reader, or a later run, sees the old content or the new."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """What differs between two trees of JSON values, one text a leaf: `base.steps: 100 there, 200 now`."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in dict.fromkeys([*old, *new]):
            found += differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
        return found
    return [] if old == new else [f"{where}: {json.dumps(old)} there, {json.dumps(new)} now"]
