"""Which scoring mechanism goes with which framework, and which scorer does it. Needs no torch.

The grid of "Where Relevance Emerges" (arXiv 2602.22591), section 3, completed by pointwise and
pairwise. A *mechanism* says what of the model is taken for relevance, a *framework* which
documents meet in one prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from icr_rag.errors import ConfigError

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig
    from icr_rag.model.engine import Engine

#: Mechanism -> the frameworks that it goes with; ``framework="auto"`` is the first.
FRAMEWORKS: dict[str, tuple[str, ...]] = {
    "attention": ("listwise", "setwise", "pointwise"),
    "likelihood": ("pointwise", "pairwise", "setwise", "listwise"),
    "generation": ("listwise", "setwise", "pairwise", "pointwise"),
    "mixed": ("pointwise",),
}

#: Framework -> the sorts that it goes with.
SORTS: dict[str, tuple[str, ...]] = {
    "pairwise": ("heap", "bubble", "all_pairs"),
    "setwise": ("heap", "bubble"),
}


def resolve_framework(scoring: str, framework: str) -> str:
    """The framework, with "auto" replaced.

    Raises:
        ConfigError: if the two do not go together; lists those that do.
    """
    allowed = FRAMEWORKS[scoring]
    if framework == "auto":
        return allowed[0]
    if framework not in allowed:
        pairs = "; ".join(f"{name}: {', '.join(with_)}" for name, with_ in FRAMEWORKS.items())
        raise ConfigError(
            f"scoring={scoring!r} does not go with framework={framework!r}; allowed are {pairs}"
        )
    return framework


def check_sort(framework: str, sort: str) -> None:
    """Raise `ConfigError` if ``sort`` does not go with ``framework``."""
    allowed = SORTS.get(framework)
    if allowed is not None and sort not in allowed:
        raise ConfigError(
            f"sort={sort!r} does not go with framework={framework!r}; allowed are "
            f"{', '.join(allowed)}"
        )


def check_states(document_states: str, scoring: str, framework: str, likelihood: str) -> None:
    """Raise `ConfigError` where documents cannot be encoded independently of the query."""
    if document_states == "joint":
        return
    if document_states == "blind":
        fits = (scoring, framework) == ("attention", "listwise")
        others = "attention (listwise)"
    else:
        fits = {
            "attention": framework in ("pointwise", "listwise"),
            "likelihood": framework == "pointwise" and likelihood == "query",
            "mixed": True,
        }.get(scoring, False)
        others = "attention (pointwise, listwise), query likelihood (pointwise) and mixed"
    if not fits:
        raise ConfigError(
            f"document_states={document_states!r} does not go with scoring={scoring!r}, "
            f"framework={framework!r}; it goes with {others}"
        )


def needs_lm_head(scoring: str) -> bool:
    """Whether the mechanism needs the whole model, LM head included."""
    return scoring != "attention"


def make_scorer(engine: Engine, config: RerankerConfig) -> Any:
    """The scorer for a configuration: an object with the methods of its framework.

    ``score`` for listwise, ``score_each`` for pointwise, ``pick`` for setwise, ``prefer`` for
    pairwise; see `icr_rag.scoring.base`.
    """
    framework = resolve_framework(config.scoring, config.framework)
    if config.scoring == "attention":
        from icr_rag.selection import select_heads

        framework = select_heads(config, engine.text_config).framework
        if framework == "pointwise":
            from icr_rag.scoring.pointwise_attention import PointwiseAttentionScorer

            return PointwiseAttentionScorer(engine, config)
        if config.document_states != "joint":
            from icr_rag.scoring.shared_tail import SharedTailScorer

            return SharedTailScorer(engine, config)
        from icr_rag.scoring.attention import AttentionScorer

        return AttentionScorer(engine, config)
    if config.scoring == "mixed":
        from icr_rag.scoring.mixed import MixedScorer

        return MixedScorer(engine, config)
    if config.scoring == "generation":
        from icr_rag.scoring.generation import GenerationScorer

        return GenerationScorer(engine, config, framework)
    if framework != "pointwise":
        from icr_rag.scoring.labels import LabelLikelihoodScorer

        return LabelLikelihoodScorer(engine, config, framework)
    if config.likelihood == "yes_no":
        from icr_rag.scoring.likelihood import YesNoScorer

        return YesNoScorer(engine, config)
    from icr_rag.scoring.likelihood import QueryLikelihoodScorer

    return QueryLikelihoodScorer(engine, config)
