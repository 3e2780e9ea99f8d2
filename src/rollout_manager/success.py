"""Rules that say what became of an episode. A person's word overrules them (see labels.py)."""

from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.labels import Label, LabelOutcome, make_label

SIMULATOR_RULE = "simulator"
"""The simulator's own predicate on its full state."""


def simulator_label(header: EpisodeHeader, outcome: Outcome) -> Label:
    """The label that the simulator's predicate gives. Time up is a failure; an aborted try says nothing."""
    verdict: LabelOutcome = "failure" if outcome.ending == "truncated" else outcome.ending
    note = outcome.reason or f"{outcome.ending} after {outcome.steps} steps, progress {outcome.progress:.2f}"
    return make_label(header.episode_id, verdict, header.environment, SIMULATOR_RULE, note)
