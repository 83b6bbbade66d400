"""Explained scores of the candidates of queries: what calibrations are fitted on."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.evaluation.environment import versions
from icr_rag.evaluation.harness import Setting, given_order
from icr_rag.profiles import Profile, Shape
from icr_rag.profiles.shipped import shipped_profile
from icr_rag.profiling.calibrate import Fitted, ScoredList
from icr_rag.profiling.resume import Task
from icr_rag.reranker import Reranker

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def scoring_config(config: RerankerConfig, profile: str | None = None) -> RerankerConfig:
    """The same way of scoring, with explained scores.

    Args:
        config: scoring, framework, likelihood, prompt and model settings.
        profile: a file whose heads are read; None: those of the profile that ships.

    Raises:
        ConfigError: for a way of scoring that has no such scores.
    """
    return config.settled().switched(
        score_mode="explained", profile=profile, fusion="none", cascade=None, min_answerable=None
    )


def score_lists(
    reranker: Reranker,
    tasks: Sequence[Task],
    progress: Callable[[int, int], None] | None = None,
) -> list[ScoredList]:
    """One list per query of every task, in their order.

    Args:
        reranker: a `Reranker` with `scoring_config`.
        tasks: what to read. Queries without candidates are left out, and documents without text.
        progress: called with (finished, all) queries before the first is read and after each.
    """
    wanted = [
        (task, query) for task in tasks for query in task.queries if task.candidates.get(query)
    ]
    found = []
    for number, (task, query) in enumerate(wanted):
        if progress is not None:
            progress(number, len(wanted))
        names = list(task.candidates[query])
        # In the order of the harness, so that the same candidates are taken.
        names = given_order(names, query, Setting(task.depth, None))[: task.depth]
        documents = [task.dataset.documents[name] for name in names]
        grades = task.dataset.judgements.get(query, {})
        ranking = reranker.rank(task.dataset.queries[query], documents)
        read = np.array([group >= 0 for group in ranking.score_groups], dtype=bool)
        found.append(
            ScoredList(
                query_id=query,
                group=task.name,
                scores=np.array(ranking.scores, dtype=np.float64)[read],
                relevant=np.array([grades.get(name, 0) > 0 for name in names], dtype=bool)[read],
            )
        )
    if progress is not None:
        progress(len(wanted), len(wanted))
    return found


def heads_to_calibrate(config: RerankerConfig, text_config: PreTrainedConfig) -> Profile | None:
    """The profile whose heads are read; None: the way of scoring reads none.

    Args:
        config: as `scoring_config` gives it.
        text_config: transformers configuration of the whole model.

    Raises:
        ConfigError: if heads are read and no profile says which.
    """
    if config.profile is not None:
        return Profile.load(config.profile)
    if not config.method.reads_attention:
        return None
    found = shipped_profile(text_config, config.scoring, config.framework, config.document_states)
    if found is None:
        raise ConfigError(
            f"no profile ships with heads of {config.model} for scoring={config.scoring!r}; choose "
            "heads with --method learned, or give a file that has them with --profile"
        )
    return found


def calibrated(reranker: Reranker, fitted: Fitted, heads: Profile | None) -> Profile:
    """A profile with what was fitted to a reranker's scores.

    Args:
        reranker: as it scored.
        fitted: on its scores.
        heads: the profile whose heads it reads; None: it reads none.
    """
    created = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    if heads is not None:
        return heads.model_copy(
            update={
                "calibration": fitted.calibration,
                "abstention": fitted.abstention,
                "created": created,
                "versions": versions(),
            }
        )
    config = reranker.config
    return Profile(
        calibration=fitted.calibration,
        abstention=fitted.abstention,
        created=created,
        versions=versions(),
        model=config.model,
        revision=config.revision,
        shape=Shape.of(reranker.engine.text_config),
        scoring=config.scoring,
        framework="pointwise",
        likelihood=config.likelihood,
        method="nothing chosen: a calibration alone",
    )
