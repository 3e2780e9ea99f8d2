"""Rules that say what became of an episode. A person's word overrules them (see labels.py)."""

from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.labels import Label, LabelOutcome, make_label

SIMULATOR_RULE = "simulator"
"""The simulator's own predicate on its full state."""

RULES_VERSION = "success_rules"
"""Under this name the digest of one's own rules, where they judge, is among the versions in every bag and result."""


def simulator_label(header: EpisodeHeader, outcome: Outcome) -> Label:
    """The label that the simulator's predicate gives, or one's own rules in its place.

    Time up is a failure; an aborted try says nothing.
    """
    verdict: LabelOutcome = "failure" if outcome.ending == "truncated" else outcome.ending
    note = outcome.reason or f"{outcome.ending} after {outcome.steps} steps, progress {outcome.progress:.2f}"
    own = header.versions.get(RULES_VERSION)
    rule = f"{RULES_VERSION}:{own}" if own else SIMULATOR_RULE
    return make_label(header.episode_id, verdict, header.environment, rule, note)
