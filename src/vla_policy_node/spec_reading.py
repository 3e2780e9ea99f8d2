"""From what a YAML or JSON file holds to frozen dataclasses, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from vla_policy_node.action_spec import one_of
from vla_policy_node.exceptions import SpecError

T = TypeVar("T")


def build(kind: type[T], content: object, origin: str, parts: Mapping[str, type[Any]] | None = None) -> T:
    """A dataclass from keys with values. Args: parts: keys that hold a list of dataclasses, and which.

    Raises:
        SpecError: a key is unknown, missing or of the wrong kind; `origin` says where.
    """
    values = dict(mapping(content, origin))
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        one_of(f"{origin}: key", key, known)
    for key, part in (parts or {}).items():
        items = values.get(key, ())
        if not isinstance(items, Sequence) or isinstance(items, str):
            raise SpecError(f"{origin}: '{key}' must be a list, not {items!r}")
        values[key] = tuple(build(part, item, f"{origin}: {key}[{i}]") for i, item in enumerate(items))
    try:
        return kind(**values)
    except TypeError as error:
        raise SpecError(f"{origin}: {error}") from error


def mapping(content: object, origin: str) -> Mapping[str, Any]:
    """Raises: SpecError: it is not keys with values."""
    if not isinstance(content, Mapping):
        raise SpecError(f"{origin}: expected keys with values, not {content!r}")
    return content


def plain(value: Any) -> Any:
    """Mappings, lists, numbers and strings of what `asdict` gives."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value
