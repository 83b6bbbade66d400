"""Text, JSON and YAML that may lie about themselves, read within bounds.

A short file can ask for much: brackets nested a hundred thousand deep, aliases that double at
every line, a number of a million digits. Here each is a `ValueError` in plain words, which the
caller turns into an error that names the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

#: Values that a YAML document may unfold to, every alias counted as what it stands for.
MOST_VALUES = 100_000
#: Brackets in brackets of a YAML text.
_DEEPEST = 100


def read_text(path: Path, most: int) -> str:
    """The text of a file in UTF-8 of at most ``most`` bytes.

    No more than that is read, so that neither a device nor a pipe without end does harm.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is larger or not UTF-8; also for a path that cannot be one.
    """
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most:,} bytes, the most that is read")
    return content.decode("utf-8")


def parse_json(text: str | bytes) -> object:
    """What a JSON text holds.

    Raises:
        ValueError: if it is not JSON, is nested too deep, or holds a number with too many digits.
    """
    try:
        value: object = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return value


def parse_yaml(text: str) -> object:
    """What a YAML text holds; safe types only.

    Raises:
        ValueError: if it is not YAML, is nested too deep, or unfolds to too many values.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _unfolded(node, {}) > MOST_VALUES:
                raise ValueError(f"its aliases unfold to more than {MOST_VALUES:,} values")
            value: object = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    # What a constructor makes of a tag that does not fit, as in `!!float {}` or `!!int ""`.
    except (TypeError, AttributeError, LookupError, OverflowError) as error:
        raise ValueError(f"a value does not fit its tag: {error}") from error
    return value


class _Loader(yaml.SafeLoader):
    """Looks at all open brackets again at each one, which takes hours for a megabyte of them."""

    def fetch_flow_collection_start(self, kind: type[yaml.Token]) -> None:
        if self.flow_level >= _DEEPEST:
            raise yaml.YAMLError("it is nested too deep")
        super().fetch_flow_collection_start(kind)


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for; what it holds twice counts twice.

    A node that holds itself counts as too many.
    """
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MOST_VALUES + 1
    count = 1
    if isinstance(node, yaml.SequenceNode):
        count += sum(_unfolded(child, known) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        count += sum(_unfolded(child, known) for pair in node.value for child in pair)
    # Without a bound the sums themselves would grow to numbers of many digits.
    known[id(node)] = min(count, MOST_VALUES + 1)
    return known[id(node)]
