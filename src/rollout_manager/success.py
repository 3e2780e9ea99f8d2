"""Rules that say what became of an episode. A person's word overrules them (see labels.py)."""

from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.labels import HUMAN_RULE, Label, LabelOutcome, make_label
from rollout_manager.station import by_operator

SIMULATOR_RULE = "simulator"
"""The simulator's own predicate on its full state."""
TIME_RULE = "time_limit"
"""Nobody said anything before time was up."""
OPERATOR_RULE = "operator"
"""An operator would have judged, had the try come to its end."""

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


def operator_label(header: EpisodeHeader, outcome: Outcome, author: str) -> Label:
    """The label that an operator's word gives.

    What they did not say is not theirs: that time was up counts as a failure by the clock, and may be overruled; a try
    that something else cut short says nothing.

    Args: author: the operator.
    """
    note = outcome.reason or f"{outcome.ending} after {outcome.steps} steps"
    if outcome.ending == "truncated":
        return make_label(header.episode_id, "failure", header.environment, TIME_RULE, note)
    if outcome.ending == "aborted":
        if by_operator(outcome):
            return make_label(header.episode_id, "discard", author, HUMAN_RULE, note)
        return make_label(header.episode_id, "aborted", header.environment, OPERATOR_RULE, note)
    return make_label(header.episode_id, outcome.ending, author, HUMAN_RULE, note)


def label_of(header: EpisodeHeader, outcome: Outcome, author: str = "") -> Label:
    """The label that a try gets when it is over. Args: author: the operator who said so; empty: a simulator did."""
    return operator_label(header, outcome, author) if author else simulator_label(header, outcome)
