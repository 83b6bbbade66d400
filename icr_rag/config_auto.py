"""``scoring="auto"``: which ways of scoring it may stand for, as far as the settings tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icr_rag.errors import ConfigError
from icr_rag.method import AUTO
from icr_rag.methods import frameworks_of

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig

#: What "auto" may stand for, the cheapest first: attention ends at the last layer that is read,
#: likelihood runs the whole model, mixed does both.
OPEN = ("attention", "likelihood", "mixed")


def with_scoring(config: RerankerConfig, scoring: str, **changes: Any) -> RerankerConfig:
    """These settings with a way of scoring in place of "auto", and nothing left to prefer.

    Raises:
        ConfigError: if one of them means nothing to it.
    """
    return config.replace(scoring=scoring, prefer=_default(config), **changes)


def open_to(config: RerankerConfig) -> list[RerankerConfig]:
    """The settings with each way of scoring that has a use for all of them, the cheapest first.

    Raises:
        ConfigError: if there is none; says what is wrong with the first whose framework fits.
    """
    found: list[RerankerConfig] = []
    refused: list[tuple[str, ConfigError]] = []
    for scoring in OPEN:
        try:
            found.append(with_scoring(config, scoring))
        except ConfigError as error:
            refused.append((scoring, error))
    if not found:
        fitting = [e for name, e in refused if config.framework in ("auto", *frameworks_of(name))]
        raise fitting[0] if fitting else refused[0][1]
    return found


def check_auto(config: RerankerConfig) -> None:
    """Raise `ConfigError` for settings that no way of scoring has a use for, or a preference
    where there is nothing to choose between."""
    found = open_to(config)
    if len(found) == 1 and config.prefer != _default(config):
        raise ConfigError(
            f"prefer={config.prefer!r} means nothing here: the other settings are for "
            f"scoring={found[0].scoring!r} alone; leave it out"
        )


def switched_to_auto(config: RerankerConfig, changes: Mapping[str, Any]) -> RerankerConfig:
    """`icr_rag.config.RerankerConfig.switched` where the outcome has ``scoring="auto"``: settings
    stay that the first way of scoring which takes the changes has a use for."""
    own = (config.settled().scoring,) if config.scoring == AUTO else ()
    refused: list[ConfigError] = []
    for scoring in dict.fromkeys((*own, *OPEN)):
        try:
            fixed = {**changes, "scoring": scoring, "prefer": _default(config)}
            found = config.switched(**fixed).replace(scoring=AUTO)
        except ConfigError as error:
            refused.append(error)
            continue
        if "prefer" in changes or len(open_to(found)) > 1:
            return found.replace(prefer=changes.get("prefer", config.prefer))
        return found
    raise refused[0]


def _default(config: RerankerConfig) -> object:
    return type(config).model_fields["prefer"].default
