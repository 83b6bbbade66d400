"""The methods: one table of all ways of scoring, and what is true of each.

A *mechanism* (`scoring`) says what of the model is taken for relevance, a *framework* which
documents meet in one prompt: the grid of "Where Relevance Emerges" (arXiv 2602.22591, section 3),
completed by pointwise and pairwise. Everything that has to know which methods there are reads it
here: the checks of a configuration, loading, the choice of a scorer, help texts, pages and plots.

Another package adds a method by an entry point of the group ``icr_rag.methods`` that names a
`Method`, or a list of them; nothing here is touched.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
from collections.abc import Iterable

from icr_rag.errors import ConfigError
from icr_rag.method import (
    CHUNK,
    FRAMEWORKS,
    INSTRUCTION,
    KEPT,
    READ,
    SETS,
    SORTING,
    SORTS,
    SPECIAL,
    TAIL,
    WINDOWS,
    WITH_NULL,
    Method,
)

__all__ = [
    "BUILT_IN", "FRAMEWORKS", "GROUP", "SORTS", "SPECIAL", "WITH_NULL", "Method", "find_method",
    "frameworks_of", "keeps", "listed", "methods", "resolve_framework", "scorings", "using",
    "with_explained",
]  # fmt: skip

logger = logging.getLogger(__name__)

#: The group of entry points by which other packages add methods.
GROUP = "icr_rag.methods"

_ICR = "ICR (arXiv 2410.02642), Selective-ICR (arXiv 2602.22591)"

#: The methods of this package. Of a mechanism's frameworks ``framework="auto"`` is the first.
BUILT_IN: tuple[Method, ...] = (
    Method(
        "attention", "listwise", "icr_rag.scoring.joint_attention:JointAttentionScorer",
        "attention of the query's tokens to each document, all in one prompt",
        "1 per window",
        needs_lm_head=False, reads_attention=True, adds_up=True,
        settings=frozenset({*CHUNK, *READ, "aggregation", *TAIL, *WINDOWS, "order"}),
        source=_ICR, colour="#2b7fb8", marker="o",
    ),
    Method(
        "attention", "listwise",
        "icr_rag.scoring.independent_attention:IndependentAttentionScorer",
        "the same, documents encoded independently of each other and kept",
        "1 per window",
        document_states=("independent", "blind"),
        needs_lm_head=False, reads_attention=True, adds_up=True,
        settings=frozenset({*READ, "aggregation", *TAIL, *WINDOWS, *KEPT}),
        source="as ICR; blind: late interaction (arXiv 2004.12832)",
    ),
    Method(
        "attention", "setwise", "icr_rag.scoring.joint_attention:JointAttentionScorer",
        "the same over s documents, the best one picked",
        "heap or bubble sort",
        needs_lm_head=False, reads_attention=True, adds_up=True,
        settings=frozenset({*CHUNK, *READ, "aggregation", *TAIL, *SETS, "order"}),
        source="Selective-ICR (arXiv 2602.22591)",
    ),
    Method(
        "attention", "pointwise", "icr_rag.scoring.pointwise_attention:PointwiseAttentionScorer",
        "the same, each document alone with the query",
        "n",
        document_states=("joint", "independent"),
        needs_lm_head=False, reads_attention=True, adds_up=True,
        settings=frozenset({*CHUNK, *INSTRUCTION, *READ, *KEPT}),
        explained="attention beyond that of documents without content, which is 0",
        source="as ICR, one document a prompt",
    ),
    Method(
        "likelihood", "pointwise", "icr_rag.scoring.likelihood:QueryLikelihoodScorer",
        "mean log P of the query's tokens after the document",
        "n",
        variant="query", document_states=("joint", "independent"),
        settings=frozenset({*CHUNK, *INSTRUCTION, *KEPT, "likelihood", "profile"}),
        explained="share of the query's surprise that the document explains, 0 for none, at most 1",
        source="UPR (arXiv 2204.07496)", colour="#d55e00", marker="s",
    ),
    Method(
        "likelihood", "pointwise", "icr_rag.scoring.likelihood:YesNoScorer",
        "log P(yes) - log P(no)",
        "n",
        variant="yes_no",
        settings=frozenset({*CHUNK, *INSTRUCTION, "likelihood", "profile", "yes_no_template"}),
        explained="probability of yes against no",
        source="RG-YN (arXiv 2310.14122), Qwen3-Reranker (arXiv 2506.05176)",
    ),
    Method(
        "likelihood", "pairwise", "icr_rag.scoring.labels:LabelLikelihoodScorer",
        'likelihood of "A" against "B", in both orders',
        "2 per comparison",
        settings=frozenset({*CHUNK, *INSTRUCTION, *SORTING}),
        source="PRP (arXiv 2306.17563)",
    ),
    Method(
        "likelihood", "setwise", "icr_rag.scoring.labels:LabelLikelihoodScorer",
        "the likeliest of s labels",
        "heap or bubble sort",
        settings=frozenset({*CHUNK, *INSTRUCTION, *SETS}),
        source="Setwise (arXiv 2310.09497)",
    ),
    Method(
        "likelihood", "listwise", "icr_rag.scoring.labels:LabelLikelihoodScorer",
        "likelihoods of all labels in one pass",
        "1 per window",
        settings=frozenset({*CHUNK, *INSTRUCTION, *WINDOWS}),
        source="FIRST (arXiv 2406.15657)",
    ),
    Method(
        "generation", "listwise", "icr_rag.scoring.generation:GenerationScorer",
        "a permutation, written by the model",
        "1 per window",
        settings=frozenset({*WINDOWS, *INSTRUCTION}), writes_order=True,
        source="RankGPT (arXiv 2304.09542)", colour="#009070", marker="^",
    ),
    Method(
        "generation", "setwise", "icr_rag.scoring.generation:GenerationScorer",
        "the label of the best of s documents, written",
        "heap or bubble sort",
        settings=frozenset({*CHUNK, *INSTRUCTION, *SETS}),
        source="Setwise (arXiv 2310.09497)",
    ),
    Method(
        "generation", "pairwise", "icr_rag.scoring.generation:GenerationScorer",
        "A or B, written, in both orders",
        "2 per comparison",
        settings=frozenset({*CHUNK, *INSTRUCTION, *SORTING}),
        source="PRP (arXiv 2306.17563)",
    ),
    Method(
        "generation", "pointwise", "icr_rag.scoring.generation:GenerationScorer",
        "yes or no, written",
        "n",
        settings=frozenset({*CHUNK, *INSTRUCTION, "yes_no_template"}),
        source="RG-YN (arXiv 2310.14122)",
    ),
    Method(
        "mixed", "pointwise", "icr_rag.scoring.mixed:MixedScorer",
        "attention and query likelihood from one pass",
        "n",
        document_states=("joint", "independent"),
        reads_attention=True, default_reading="log_mass",
        settings=frozenset({*CHUNK, *INSTRUCTION, *READ, *KEPT}),
        explained="weighted mean of the shares that likelihood and attention explain, 0 for none",
        source="UPR (arXiv 2204.07496) and ICR (arXiv 2410.02642)",
        colour="#b0609a", marker="D",
    ),
)  # fmt: skip


@functools.cache
def methods() -> tuple[Method, ...]:
    """All methods: those of this package, then those of others."""
    return (*BUILT_IN, *_of_other_packages())


def _of_other_packages() -> list[Method]:
    found: list[Method] = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            named: object = entry.load()
            rows = [named] if not isinstance(named, Iterable) else list(named)
        # Another package's module may raise anything; it must not take this one down with it.
        except Exception as error:  # noqa: BLE001
            logger.warning("the methods of %s cannot be had: %s", entry.value, error)
            continue
        for row in rows:
            problem = _clash(row, found)
            if problem is None and isinstance(row, Method):
                found.append(row)
            else:
                logger.warning("a method of %s is left out: %s", entry.value, problem)
    return found


def _clash(row: object, others: Iterable[Method]) -> str | None:
    """Why something cannot be added to the table; None if it can."""
    if not isinstance(row, Method):
        return f"{row!r} is no icr_rag.methods.Method"
    for other in (*BUILT_IN, *others):
        same = (row.scoring, row.framework) == (other.scoring, other.framework)
        apart = row.variant and other.variant and row.variant != other.variant
        if same and not apart and not set(row.document_states).isdisjoint(other.document_states):
            return f"there is one for {other.label} already"
    return None


def scorings() -> list[str]:
    """The mechanisms, in the order of the table."""
    return list(dict.fromkeys(row.scoring for row in methods()))


def frameworks_of(scoring: str) -> tuple[str, ...]:
    """The frameworks that a mechanism goes with; ``framework="auto"`` is the first."""
    return tuple(dict.fromkeys(row.framework for row in methods() if row.scoring == scoring))


def resolve_framework(scoring: str, framework: str) -> str:
    """The framework, with "auto" replaced.

    Raises:
        ConfigError: if the two do not go together; lists those that do.
    """
    allowed = frameworks_of(scoring)
    if framework == "auto" and allowed:
        return allowed[0]
    if framework not in allowed:
        pairs = "; ".join(f"{name}: {', '.join(frameworks_of(name))}" for name in scorings())
        raise ConfigError(
            f"scoring={scoring!r} does not go with framework={framework!r}; allowed are {pairs}"
        )
    return framework


def find_method(scoring: str, framework: str, likelihood: str, document_states: str) -> Method:
    """The row for these settings.

    Args:
        framework: "auto" is replaced by the mechanism's first.

    Raises:
        ConfigError: if they do not go together; says what does.
    """
    framework = resolve_framework(scoring, framework)
    rows = [
        row
        for row in methods()
        if (row.scoring, row.framework) == (scoring, framework) and row.variant in ("", likelihood)
    ]
    if not rows:
        raise ConfigError(
            f"likelihood={likelihood!r} does not go with scoring={scoring!r}, "
            f"framework={framework!r}; leave it out"
        )
    for row in rows:
        if document_states in row.document_states:
            return row
    fitting = [row for row in methods() if document_states in row.document_states]
    raise ConfigError(
        f"document_states={document_states!r} does not go with scoring={scoring!r}, "
        f"framework={framework!r}; it goes with {listed(fitting)}"
    )


def keeps(scoring: str, framework: str, document_states: str) -> bool:
    """Whether a mechanism goes with a value of `document_states` in a framework ("auto": any)."""
    return any(
        document_states in row.document_states
        for row in methods()
        if row.scoring == scoring and framework in ("auto", row.framework)
    )


def using(setting: str) -> list[Method]:
    """The methods that a setting means something to."""
    return [row for row in methods() if row.uses(setting)]


def with_explained() -> list[Method]:
    """The methods that ``score_mode="explained"`` and "probability" are for."""
    return [row for row in methods() if row.explained]


def listed(rows: Iterable[Method], *, short: bool = False) -> str:
    """Methods as messages and pages name them: ``attention (listwise, setwise), mixed``.

    Args:
        short: without the frameworks where all of a mechanism's are meant, and without variants.
    """
    groups: dict[str, dict[str, None]] = {}
    for row in rows:
        variant = f" by likelihood={row.variant!r}" if row.variant and not short else ""
        groups.setdefault(row.scoring, {})[f"{row.framework}{variant}"] = None
    parts = []
    for scoring, names in groups.items():
        all_of_them = short and len(names) == len(frameworks_of(scoring))
        parts.append(scoring if all_of_them else f"{scoring} ({', '.join(names)})")
    return ", ".join(parts)
