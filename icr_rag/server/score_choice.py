"""Which settings a server ranks with: scores that compare, and answers that are whole."""

from __future__ import annotations

import logging
from pathlib import Path, PureWindowsPath

from icr_rag.config import RerankerConfig
from icr_rag.config_checks import is_set
from icr_rag.config_scores import counts_first_stage
from icr_rag.errors import ConfigError
from icr_rag.reranker import Reranker
from icr_rag.server.score_key import check_cacheable

logger = logging.getLogger(__name__)

#: Settings that leave documents out of an answer, or give an order without a ranking.
_PARTIAL = ("top_n", "score_threshold", "min_answerable", "near_duplicates")


def check_served(config: RerankerConfig) -> None:
    """Raise `ConfigError` for settings with which answers would not be whole.

    Clients map scores to documents by position, and cut or filter by themselves.
    """
    for name in _PARTIAL:
        if is_set(config, name):
            raise ConfigError(
                f"{name}={getattr(config, name)!r} leaves documents out, and a server answers with "
                "every document; leave it out: requests have a top_n, clients a threshold"
            )
    if config.on_error == "passthrough":
        raise ConfigError(
            "on_error='passthrough' answers with the given order where ranking failed, and a "
            "server answers with an error then; leave it out"
        )
    if config.fusion not in ("auto", "none"):
        raise ConfigError(
            f"fusion={config.fusion!r} counts the first stage, whose scores requests do not have; "
            "leave it out, or set fusion='none'"
        )


def load_served(config: RerankerConfig) -> Reranker:
    """A loaded and warmed reranker whose scores are of the query and the document alone.

    With ``score_mode`` not given: probabilities, where the profile in use has a calibration, else
    explained scores. One that is given by name is used; where it is relative to the list, the log
    says so. The first stage never counts.

    Raises:
        ConfigError: if the settings have no absolute scores, and none are asked for by name; or as
            `check_served`.
        ModelLoadError: if the model cannot be loaded.
    """
    check_served(config)
    # Of the caller's own naming: a "raw" by default is no wish for scores that do not compare.
    asked = "score_mode" in config.model_fields_set and config.score_mode
    changes = _without_first_stage(config)
    if asked:
        reranker = load_warm(config.replace(**changes))
        warn_of_relative(reranker.config)
        return reranker
    try:
        return load_absolute(config.replace(**changes))
    except ConfigError as error:
        raise ConfigError(
            f"{error}. A server needs scores that compare across requests; or ask for scores "
            "that are relative to one list by name: score_mode='raw'"
        ) from error


def load_absolute(config: RerankerConfig) -> Reranker:
    """A loaded and warmed reranker with probabilities, where the profile in use has a calibration,
    else with explained scores.

    Raises:
        ConfigError: why explained scores cannot be had.
        ModelLoadError: if the model cannot be loaded.
    """
    try:
        return load_warm(config.replace(score_mode="probability"))
    except ConfigError:
        return load_warm(config.replace(score_mode="explained"))


def load_warm(config: RerankerConfig) -> Reranker:
    """A loaded and warmed reranker.

    Raises:
        ConfigError: if a setting does not fit the model.
        ModelLoadError: if the model cannot be loaded.
    """
    reranker = Reranker(config)
    try:
        return reranker.warm_up()
    except BaseException:
        # What was loaded on the way is not held until somebody collects it.
        reranker.close()
        raise


def serve_given(reranker: Reranker) -> Reranker:
    """A reranker that somebody made, warm; where the first stage or a deadline of its own would
    count, one on the same weights in which it does not."""
    check_served(reranker.config)
    warn_of_relative(reranker.config)
    own = reranker.config
    if counts_first_stage(own) or own.deadline_ms is not None:
        reranker = reranker.with_config(**_without_first_stage(own))
    return reranker.warm_up()


def check_cached(config: RerankerConfig) -> None:
    """Raise `ConfigError` unless scores may be kept: they must not depend on other documents."""
    check_cacheable(config)
    if config.diversity is not None:
        raise ConfigError(
            "diversity orders the documents of one request, so that scores cannot be kept for "
            "others; leave out one of diversity and the score cache"
        )


def warn_of_relative(config: RerankerConfig) -> None:
    """Say in the log if scores are relative to one list."""
    if not config.absolute:
        logger.warning(
            "score_mode=%r: scores are relative to the documents of one request; clients that "
            "compare them across requests, send lists in parts or set a threshold get wrong "
            "results",
            config.score_mode,
        )


def public_name(model: str) -> str:
    """A model's name without where on this machine it is."""
    if "\\" in model:
        model = PureWindowsPath(model).name
    path = Path(model).expanduser()
    local = path.is_absolute() or model.startswith((".", "~")) or path.exists()
    return path.name.removesuffix(".gguf") or "model" if local else model


def _without_first_stage(config: RerankerConfig) -> dict[str, str | None]:
    """Changes after which the first stage does not count, nor settings about it."""
    # A deadline is the server's affair, which counts from a request's arrival.
    changes: dict[str, str | None] = {"fusion": "none", "deadline_ms": None}
    for name in ("embedder", "first_stage_weights"):
        if is_set(config, name):
            raise ConfigError(
                f"{name} is about the first stage, which does not count in a server; leave it out"
            )
    return changes
