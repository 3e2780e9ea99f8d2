"""What training reports while it runs: one JSON line every few steps, and the same figures for TensorBoard."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

HISTORY = "history.jsonl"


class TrainingLog(AbstractContextManager["TrainingLog"]):
    """Writes `history.jsonl` and `tensorboard/` in a run's folder; a resumed run continues both."""

    def __init__(self, folder: Path, step: int) -> None:
        """Args: step: gradient steps done; what was logged after it is done again and thus dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / HISTORY
        kept = [line for line in read_history(folder) if line["step"] <= step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures by name, after `step` gradient steps; without any, nothing is written."""
        if not figures:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()


def read_history(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's `history.jsonl`, in order; a torn last one is passed over."""
    path = folder / HISTORY
    if not path.is_file():
        return []
    content = path.read_text()
    return [json.loads(line) for line in content[: content.rfind("\n") + 1].splitlines()]
