"""The training loop: gradient steps, logging, validation, checkpoints, exact resume.

All that is random in a step is a function of the configuration's seed and the step, so a run that was killed and
resumed ends with the very weights of one that was not (on the same machine, with the same number of threads).
"""

import math
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.augmentation import augment
from trainer.averaging import WeightAverage
from trainer.config import TrainingConfig
from trainer.cuda_graph import can_be_graphed, graphed
from trainer.dataset import Batch
from trainer.exceptions import TrainingError
from trainer.objectives import OBJECTIVES
from trainer.optimizer import learning_rate, make_optimizer
from trainer.pieces import uninterrupted
from trainer.prefetch import Prefetcher
from trainer.progress import ProgressBar
from trainer.run_identity import run_identity
from trainer.sampler import WindowSampler
from trainer.train_state import Candidate, Progress, RunIdentity, load_state, save_state
from trainer.training_log import TrainingLog
from vla_policy_node.checkpoint import Lineage, save_checkpoint
from vla_policy_node.network.encoders import VisionFeatures
from vla_policy_node.network.flow_head import Course
from vla_policy_node.network.language import LanguageFeatures
from vla_policy_node.network.vla import VLANetwork

Validate = Callable[[int, Path], float]
"""Score, higher is better, of the checkpoint in a folder, made after so many steps."""


@dataclass(frozen=True)
class TrainResult:
    """What a training run gave."""

    folder: Path
    progress: Progress
    seconds_per_step: float
    """Of this session, without validation; not a number where nothing was left to do."""

    @property
    def best(self) -> Candidate:
        """The candidate that validation chose; the last one where nothing validated."""
        assert self.progress.best is not None
        return self.progress.best

    @property
    def checkpoint(self) -> Path:
        """Folder of the best checkpoint."""
        return self.folder / "checkpoints" / self.best.checkpoint


def train(
    network: VLANetwork,
    sampler: WindowSampler,
    config: TrainingConfig,
    folder: Path,
    lineage: Lineage,
    validate: Validate | None = None,
    visible: bool = True,
) -> TrainResult:
    """Train a network, going on where an earlier call in the same folder was stopped.

    Args:
        network: with the weights to start from; changed in place. Batches come from `sampler`.
        folder: gets `checkpoints/`, `state/`, `history.jsonl` and `tensorboard/`.
        lineage: of the start; its `gradient_steps` are those before this run.
        validate: scores a checkpoint; without it the last one counts as best.

    Raises:
        TrainingError: the folder holds another run's state, the loss is not finite, or the disk is full.
    """
    run = _Run(network, sampler, config, folder, lineage)
    first = run.progress.step
    with (
        run.batches,
        TrainingLog(folder, first) as log,
        ProgressBar("training", config.steps, first, visible) as bar,
    ):
        try:
            while not run.progress.finished:
                if not run.owes_candidate:
                    run.advance(log, bar)
                if run.owes_candidate:
                    run.candidate(validate)
                    log.write(run.progress.step, _validation_figures(run.progress))
                run.save_if_due()
        except KeyboardInterrupt:
            run.save()
            raise
    return TrainResult(folder, run.progress, run.seconds_per_step)


def derived_seed(seed: int, step: int, stream: int = 0) -> int:
    """A seed for one purpose of one step, far from those of any other."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _due(step: int, every: int, steps: int) -> bool:
    return step >= steps or (every > 0 and step % every == 0)


def _validation_figures(progress: Progress) -> dict[str, float]:
    score = progress.candidates[-1].score
    return {} if score is None else {"validation": score}


def _is_over(progress: Progress, config: TrainingConfig) -> bool:
    """All steps are done, or validation has not improved for too long."""
    return progress.step >= config.steps or 0 < config.patience <= progress.without_improvement()


class _Run:
    """Network, optimizer and data of one run."""

    def __init__(
        self, network: VLANetwork, sampler: WindowSampler, config: TrainingConfig, folder: Path, lineage: Lineage
    ) -> None:
        torch.set_num_threads(config.threads)
        # Without a precision: accelerate keeps one for the whole process, and the next training may have another.
        self.accelerator = Accelerator(cpu=config.device == "cpu")
        device = self.accelerator.device
        # Without autocast's cache of weights: what is captured as a graph must convert them anew each time.
        self.half = torch.autocast(
            device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16", cache_enabled=device.type == "cpu"
        )
        self.config, self.sampler, self.folder, self.lineage = config, sampler, folder, lineage
        self.batches = Prefetcher(sampler, config.steps)
        self.network = network.to(self.accelerator.device)
        self.optimizer = make_optimizer(self.network, config.optimizer)
        self.prepared, self.stepper = self.accelerator.prepare(self.network, self.optimizer)
        self.average = WeightAverage(self.network, self.optimizer, config.average)
        self.identity = RunIdentity(run_identity(network, sampler, config, lineage))
        parts = self.accelerator.num_processes * config.accumulation
        self._to_be_graphed = can_be_graphed(self.network, device, parts)
        self._language: LanguageFeatures | None = None
        self._seconds: deque[float] = deque(maxlen=1000)
        self._losses: list[float] = []
        self.progress = load_state(folder / "state", self.identity, self.network, self.optimizer)

    @property
    def seconds_per_step(self) -> float:
        """Mean of this session's last steps; not a number before the first."""
        return mean(self._seconds) if self._seconds else math.nan

    @property
    def owes_candidate(self) -> bool:
        """Whether a candidate is due after the steps that are done, and not there: its validation was cut short."""
        step, candidates = self.progress.step, self.progress.candidates
        due = step > 0 and _due(step, self.config.validate_every, self.config.steps)
        return due and not (candidates and candidates[-1].step == step)

    def save(self) -> None:
        """Write the state of the run."""
        if self.accelerator.is_main_process:
            save_state(self.folder / "state", self.identity, self.progress, self.network, self.optimizer)

    def advance(self, log: TrainingLog, bar: ProgressBar) -> None:
        """One gradient step."""
        with uninterrupted():  # By the time that anything is raised, the step is whole and counted.
            figures = self.timed_step(self.progress.step)
            self.progress = replace(self.progress, step=self.progress.step + 1)
        self._losses.append(figures["loss"])
        bar.advance(f"loss {figures['loss']:.4f}")
        if _due(self.progress.step, self.config.log_every, self.config.steps):
            shown = {**figures, "loss": mean(self._losses), "seconds_per_step": self.seconds_per_step}
            log.write(self.progress.step, shown)
            self._losses.clear()

    def save_if_due(self) -> None:
        """Write the state where the run is over or the steps say so."""
        if self.progress.finished or _due(self.progress.step, self.config.save_every, self.config.steps):
            self.save()

    def candidate(self, validate: Validate | None) -> None:
        """Make a checkpoint and have it scored; only the best one so far stays on disk."""
        progress = self.progress
        name = f"step_{progress.step:08d}"
        path = self.folder / "checkpoints" / name
        steps = self.lineage.gradient_steps + progress.step
        self.network.eval()
        digest, score = "", math.nan
        if self.accelerator.is_main_process:
            with self.average.in_place():
                digest = save_checkpoint(path, self.network, replace(self.lineage, gradient_steps=steps))
            score = validate(progress.step, path) if validate else math.nan
            torch.set_num_threads(self.config.threads)  # what validated may have changed it
        score = self._from_main(score)
        made = Candidate(progress.step, name, digest, None if math.isnan(score) else score)
        progress = replace(progress, candidates=(*progress.candidates, made))
        if self.accelerator.is_main_process:
            for candidate in progress.candidates:
                if candidate != progress.best:
                    shutil.rmtree(self.folder / "checkpoints" / candidate.checkpoint, ignore_errors=True)
        # In one assignment: a run that is interrupted after it must not take another step when it goes on.
        self.progress = replace(progress, finished=_is_over(progress, self.config))

    def _from_main(self, value: float) -> float:
        """What the main process has, in every process: all must stop at the same step."""
        mine = torch.tensor(value if self.accelerator.is_main_process else 0.0, device=self.accelerator.device)
        return float(self.accelerator.reduce(mine))

    def timed_step(self, step: int) -> dict[str, float]:
        """`step`, and how long it took goes into `seconds_per_step`."""
        started = time.perf_counter()
        figures = self.step(step)
        self._seconds.append(time.perf_counter() - started)
        return figures

    def step(self, step: int) -> dict[str, float]:
        """One gradient step; gives the figures to log."""
        config, world = self.config, self.accelerator.num_processes
        rank = self.accelerator.process_index
        torch.manual_seed(derived_seed(config.seed, step, 2 * rank))
        generator = torch.Generator().manual_seed(derived_seed(config.seed, step, 2 * rank + 1))
        rate = learning_rate(step, config.steps, config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.prepared.train()
        self.stepper.zero_grad()
        batch = self.batches.batch(step)
        # Parts weigh as many steps as they hold, so accumulation gives the gradient of the whole batch.
        total, loss = int(batch.mask.sum()), 0.0
        for index in range(config.accumulation):
            part = batch.part(index * world + rank, config.accumulation * world)
            last = index == config.accumulation - 1
            with nullcontext() if last else self.accelerator.no_sync(self.prepared):
                share = self._loss(part, generator) * (float(part.mask.sum()) / max(1, total))
                self.accelerator.backward(share * world)
                loss += share.item()
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), config.optimizer.clip_norm or math.inf)
        _check_finite(step, loss)
        self.stepper.step()
        self.average.update(step + 1)
        return {"loss": loss, "learning_rate": rate, "gradient_norm": float(norm)}

    def _loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        device = self.accelerator.device
        seen = self._seen(torch.from_numpy(batch.seen).to(device), generator)
        proprioception = torch.from_numpy(batch.proprioception).to(device)
        language = self._features(batch)
        if self._to_be_graphed and isinstance(seen, Tensor):
            self.prepared = graphed(self.prepared, (seen, proprioception, *language), self.half)
            self._to_be_graphed = False

        def predict(course: Course | None) -> Tensor:
            arguments = (
                (seen, proprioception, *language) if course is None else (seen, proprioception, *language, course)
            )
            with self.half:
                predicted: Tensor = self.prepared(*arguments)
            return predicted.float()

        target = self.network.normalize_actions(torch.from_numpy(batch.actions).to(device))
        objective = OBJECTIVES[self.network.config.head]
        return objective(predict, target, torch.from_numpy(batch.mask).to(device), generator)

    def _seen(self, seen: Tensor, generator: torch.Generator) -> Tensor | VisionFeatures:
        """What the network is given of a batch's `seen`: augmented images, or features as they are."""
        if seen.dtype != torch.uint8:
            return VisionFeatures(seen)
        images = augment(seen.flatten(0, 1), self.config.augmentation, generator)
        return images.view(*seen.shape[:2], *images.shape[1:])

    def _features(self, batch: Batch) -> LanguageFeatures:
        """Language features of the batch; a frozen encoder reads each distinct instruction once."""
        instructions = self.sampler.dataset.instructions
        if not self.network.config.language.frozen:
            return self.network.encode_instructions([instructions[i] for i in batch.instruction_ids])
        if self._language is None:
            self._language = self.network.encode_instructions(instructions)
        numbers = torch.from_numpy(batch.instruction_ids).to(self._language.features.device)
        return LanguageFeatures(self._language.features[numbers], self._language.mask[numbers])


def _check_finite(step: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"gradient step {step}: the loss is {loss}; try a smaller optimizer.learning_rate than now, "
            "or mixed_precision 'no'"
        )
