"""A row of the table of methods: what is true of one way of scoring."""

from __future__ import annotations

from dataclasses import dataclass

from icr_rag.errors import ConfigError

#: The value of ``scoring`` and ``framework`` that leaves the choice.
AUTO = "auto"

#: Frameworks in the order in which texts list them.
FRAMEWORKS = ("pointwise", "pairwise", "listwise", "setwise")

#: Framework -> the sorts that it goes with.
SORTS: dict[str, tuple[str, ...]] = {
    "pairwise": ("heap", "bubble", "all_pairs"),
    "setwise": ("heap", "bubble"),
}

# --- settings, by what they are about. Those that are not here mean something to every method. ---
CHUNK = frozenset({"prefill_chunk"})
WINDOWS = frozenset({"window", "stride"})
SORTING = frozenset({"sort", "sort_top"})
SETS = frozenset({*SORTING, "set_size"})
KEPT = frozenset({"states_memory", "states_dir", "states_dtype", "cascade", "cascade_framework"})
READ = frozenset(
    {"layers", "heads", "reading", "profile", "calibration", "null_query", "token_mask"}
)
INSTRUCTION = frozenset({"instruction"})
TAIL = frozenset({*INSTRUCTION, "double_query"})

#: Settings that mean nothing to some method.
SPECIAL = frozenset(
    {*CHUNK, *WINDOWS, *SETS, *KEPT, *READ, "aggregation", *TAIL, "order", "likelihood",
     "yes_no_template"}
)  # fmt: skip

#: Readings of a head that compare with the null query; see `icr_rag.model.reading.READINGS`.
WITH_NULL = frozenset({"lift", "calibrated"})

#: Values of the settings that a method is found by.
_VARIANTS = ("", "query", "yes_no")
_DOCUMENT_STATES = ("joint", "independent", "blind")


def _problem(row: Method) -> str | None:
    """What is wrong with a row; None if nothing is. Rows come from other packages too."""
    texts = ("scoring", "scorer", "compares", "cost", "explained", "source", "colour", "marker")
    for name in texts:
        if not isinstance(getattr(row, name), str):
            return f"{name}={getattr(row, name)!r}; it must be a str"
    if row.scoring in ("", AUTO):
        return f"scoring={row.scoring!r}; it must be a name of its own"
    if row.framework not in FRAMEWORKS:
        return f"framework={row.framework!r}; allowed are {', '.join(FRAMEWORKS)}"
    if ":" not in row.scorer:
        return f"scorer={row.scorer!r}; it must be 'module:Class'"
    if row.variant not in _VARIANTS:
        return f"variant={row.variant!r}; allowed are {', '.join(map(repr, _VARIANTS))}"
    states = row.document_states
    if not isinstance(states, tuple) or not states or set(states) - set(_DOCUMENT_STATES):
        return f"document_states={states!r}; it must be a tuple of {', '.join(_DOCUMENT_STATES)}"
    if not isinstance(row.settings, (frozenset, set)):
        return f"settings={row.settings!r}; it must be a frozenset of names"
    unknown = sorted(map(str, set(row.settings) - SPECIAL))
    return f"settings {unknown} are none that a method may have or lack" if unknown else None


@dataclass(frozen=True)
class Method:
    """One way of scoring: a row of the table.

    Attributes:
        scoring: the mechanism.
        framework: which documents meet in one prompt; one of `FRAMEWORKS`.
        scorer: "module:Class". The class is called with the engine, the configuration and the
            framework, and has what `icr_rag.scoring.base` asks for.
        compares: what is compared, as a clause.
        cost: prompts that n documents cost; k is `sort_top`, s is `set_size`.
        variant: the value of the setting `likelihood` that it is for; "": any.
        document_states: what the setting may be. A method that can keep states lists
            "independent" or "blind".
        needs_lm_head: whether the whole model is run, LM head included.
        reads_attention: whether attention is read, so that layers and heads are chosen.
        adds_up: whether attention can be added up as ICR does (arXiv 2410.02642), where nobody
            says otherwise; else heads are weighted.
        default_reading: what is taken of heads where neither a setting nor a profile says it.
        settings: of `SPECIAL`, those that mean something to it.
        explained: what a score is with ``score_mode="explained"``, as a clause: it depends on the
            query and the document alone; "": there is no such score.
        source: where it comes from.
        colour, marker: of its points in plots, as matplotlib has them; those of the first row of
            a mechanism count.
        writes_order: whether what it says of a prompt is an order, without how far apart two
            documents are.
    """

    scoring: str
    framework: str
    scorer: str
    compares: str
    cost: str
    variant: str = ""
    document_states: tuple[str, ...] = ("joint",)
    needs_lm_head: bool = True
    reads_attention: bool = False
    adds_up: bool = False
    default_reading: str = "calibrated"
    settings: frozenset[str] = frozenset(CHUNK)
    explained: str = ""
    source: str = ""
    colour: str = "#7a7a00"
    marker: str = "v"
    writes_order: bool = False

    def __post_init__(self) -> None:
        """Raise `ConfigError` for what cannot be a row."""
        problem = _problem(self)
        if problem is not None:
            raise ConfigError(f"a method of scoring={self.scoring!r}: {problem}")

    def uses(self, setting: str) -> bool:
        """Whether a setting means something to it."""
        return setting not in SPECIAL or setting in self.settings

    def read(self, reading: str) -> tuple[str, bool]:
        """What is taken of heads for a value of the setting ``reading`` where no profile says it,
        and whether it is added up as ICR does, not weighted by heads."""
        found = self.default_reading if reading == "auto" else reading
        return found, found == "calibrated" and self.adds_up

    @property
    def order_only(self) -> bool:
        """Whether its scores say the order only: sorts by comparisons know no more."""
        return self.writes_order or self.framework in SORTS

    @property
    def label(self) -> str:
        """As messages name it."""
        inner = [self.framework, *([f"likelihood={self.variant!r}"] if self.variant else [])]
        if "joint" not in self.document_states:
            inner.append(f"document_states={' or '.join(map(repr, self.document_states))}")
        return f"{self.scoring} ({', '.join(inner)})"
