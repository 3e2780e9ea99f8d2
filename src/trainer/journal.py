"""Which stages of a long run are finished, and what each gave: a stage that is finished is never done again."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from trainer.exceptions import ConfigError, TrainingError

Output: TypeAlias = dict[str, Any]
"""What a stage gives: plain JSON values."""


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
    """The finished stages of the run in one folder, held for one process at a time.

    Written anew and renamed after every stage, so a kill leaves the journal of before or of after it.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Open the folder's journal, or begin one.

        Raises:
            ConfigError: the folder holds a run of another configuration; the message says what differs.
            TrainingError: another process works on it, or the journal is not readable.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "journal.json"
        self._lock = (folder / "journal.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise TrainingError(
                f"'{folder}' is in use by another run: wait for it, or choose another output"
            ) from error
        try:
            self._stages = self._open(json.loads(json.dumps(config)))
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
        """What the stage gave, done now unless it is finished."""
        if (done := self.output(name)) is not None:
            return done
        begun = time.monotonic()
        output: Output = json.loads(json.dumps(work()))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._stages[name] = Stage(name, output, round(time.monotonic() - begun, 1), now)
        self._write()
        return output

    def _open(self, config: Output) -> dict[str, Stage]:
        self._config = config
        if not self.path.exists():
            self._stages = {}
            self._write()
            return {}
        journal = read_journal(self.path)
        if changes := differences(journal["config"], config):
            raise ConfigError(
                f"'{self.path.parent}' holds a run of another configuration: {'; '.join(changes)}. "
                "Go on with the old one, or choose another output folder"
            )
        return {stage["name"]: Stage(**stage) for stage in journal["stages"]}

    def _write(self) -> None:
        content = {"config": self._config, "stages": [asdict(stage) for stage in self._stages.values()]}
        write_json(self.path, content)


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
