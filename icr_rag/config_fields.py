"""The settings: names, types, bounds, defaults and what each is for.

`icr_rag.config.RerankerConfig` adds what must agree between them, and ways to read and change them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from icr_rag.method import AUTO
from icr_rag.methods import scorings


def _allow_written_window(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "string", "pattern": r"^\s*\d+\s*-\s*\d+\s*$"})


def _allow_written_weights(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "string", "pattern": "="})
    weight = {"type": "number", "minimum": 0}
    schema["anyOf"].append({"type": "object", "additionalProperties": weight, "minProperties": 1})


def _allow_written_names(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "string", "pattern": r"\S"})


def _list_scorings(schema: dict[str, Any]) -> None:
    schema["enum"] = [AUTO, *scorings()]


#: What something weighs beside the model's score.
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Fields(BaseModel):
    """All fields of `icr_rag.config.RerankerConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    # --- the model -------------------------------------------------------------------------
    model: str = Field(
        "smollm2-135m",
        min_length=1,
        description="Hub name, local Hugging Face folder, GGUF file, or the embedded model "
        "'smollm2-135m'.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    device_map: str | dict[str, str | int] | None = Field(
        None, description="Spread the model over devices, as in transformers; replaces `device`."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of the weights. 'auto': what the checkpoint has on an accelerator, the "
        "faster of float32 and bfloat16, by measurement, on a CPU.",
    )
    attn_implementation: Literal["sdpa", "flash_attention_2", "eager"] = Field(
        "sdpa", description="The attention kernel that computes the layers' outputs."
    )
    quantization: Literal["4bit", "8bit"] | None = Field(
        None, description="Quantise the weights while loading (bitsandbytes)."
    )
    local_files_only: bool = Field(False, description="Never contact a hub or package index.")
    cache_dir: str | None = Field(None, description="Folder for downloaded and converted models.")
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with a hub model. Off unless you turn it on."
    )

    # --- how documents are judged -----------------------------------------------------------
    scoring: str = Field(
        AUTO,
        description="What is taken for relevance: 'attention' paid to a document, 'likelihood' of "
        "the query or of an answer, text by 'generation', or attention and query likelihood "
        "'mixed'. 'auto': what the other settings are for, and of that what ranked best on "
        "queries that taught nothing, by the profile of the model; attention where none says.",
        json_schema_extra=_list_scorings,
    )
    prefer: Literal["quality", "speed"] = Field(
        "quality",
        description="What scoring='auto' goes by: 'quality', the profile's held-out figures; "
        "'speed', the cheapest way of scoring that the other settings allow, attention first.",
    )
    framework: Literal["auto", "pointwise", "pairwise", "listwise", "setwise"] = Field(
        "auto",
        description="Which documents meet in one prompt. 'auto': listwise for attention and "
        "generation, pointwise for likelihood and mixed.",
    )
    likelihood: Literal["query", "yes_no"] = Field(
        "query",
        description="Pointwise likelihood: of the 'query' given the document, or of 'yes' against "
        "'no' when asked whether the document is relevant.",
    )
    yes_no_template: Literal["chat", "qwen3_reranker"] = Field(
        "chat",
        description="Prompt of yes/no: a question in the model's own chat format, or the one that "
        "Qwen3-Reranker models were trained with.",
    )
    sort: Literal["heap", "bubble", "all_pairs"] = Field(
        "heap",
        description="How pairwise and setwise comparisons make a ranking; 'all_pairs' is for "
        "pairwise only.",
    )
    set_size: int = Field(4, ge=2, le=26, description="Documents in one setwise comparison.")
    sort_top: int | None = Field(
        10,
        ge=1,
        description="How many of the best ranks a sort finds; documents below keep their order. "
        "None: all.",
    )

    # --- what is read ----------------------------------------------------------------------
    layers: Literal["auto", "all"] | tuple[int, int] = Field(
        "auto",
        description="Layers read, 0-indexed: (first, last) inclusive, 'all', or 'auto': the "
        "published or measured window of a known model, else the four middle layers.",
        json_schema_extra=_allow_written_window,
    )
    heads: Literal["auto", "all"] | tuple[tuple[int, int], ...] = Field(
        "auto",
        description="Read only these (layer, head) pairs, 0-indexed, or 'all' heads of `layers`. "
        "'auto': those of the profile or of a known model where `layers` is 'auto' too, else all.",
    )
    reading: Literal["auto", "calibrated", "lift", "log_mass", "max"] = Field(
        "auto",
        description="What is taken from each head: 'calibrated' attention added up (ICR); or, "
        "standardised per head over the candidates and then averaged, the log ratio to the null "
        "query ('lift'), the mean log attention ('log_mass') or the largest ('max'). 'auto': what "
        "the profile says, else 'calibrated'.",
    )
    profile: str | None = Field(
        None,
        description="JSON file of `icr-rag profile`: layers or weighted heads to read, and what "
        "absolute scores mean. For likelihood, which reads no heads, with score_mode='explained' "
        "or 'probability' only.",
    )
    double_query: bool = Field(
        False,
        description="Documents, query, instruction, query; only the second copy is read.",
    )
    calibration: Literal["null", "none"] = Field(
        "null", description="Subtract the reading of a content-free query, or do not."
    )
    null_query: str = Field("N/A", min_length=1, description="The content-free query.")
    token_mask: bool = Field(
        True,
        description="Drop a document's tokens at or below the mean minus two standard deviations.",
    )
    aggregation: Literal["sum", "mean"] = Field(
        "sum", description="A document's score is the sum (as published) or mean over its tokens."
    )

    # --- the prompt ------------------------------------------------------------------------
    order: Literal["best_last", "given"] = Field(
        "best_last",
        description="Place the first candidate last, nearest to the query, or keep the order.",
    )
    instruction: str = Field(
        "retrieval",
        description="What the query seeks: 'retrieval', 'question_answering', or your own "
        "sentence. A call may have its own.",
    )
    rank_fields: tuple[str, ...] | None = Field(
        None,
        description="Fields that the model reads of each document, in this order: keys of a "
        "mapping; text, title, id and metadata keys of other documents. None: title and text.",
        json_schema_extra=_allow_written_names,
    )
    rank_fields_format: Literal["lines", "yaml"] = Field(
        "lines",
        description="How `rank_fields` are written: title and text bare and others as 'name: "
        "value' lines, or all as a YAML mapping.",
    )
    max_document_tokens: int | None = Field(
        None, ge=1, description="Cut longer documents; which ones is in `usage.truncated`."
    )
    max_query_tokens: int | None = Field(
        None, ge=1, description="Cut a longer query; None: a query that does not fit is an error."
    )

    # --- long documents --------------------------------------------------------------------
    passages: Literal["none", "max", "top2"] = Field(
        "none",
        description="Split documents of more than `passage_tokens` into passages, which are read "
        "in their place: a document has the score of its best passage ('max') or the mean of its "
        "two best ('top2', not where scores say the order only). Needs the extra 'passages'.",
    )
    passage_tokens: int = Field(
        256, ge=16, description="Most tokens of a passage, the document's title before it counted."
    )
    passage_overlap: int = Field(
        0,
        ge=0,
        description="Most tokens that a passage repeats of the one before it, in whole sentences.",
    )

    # --- long lists ------------------------------------------------------------------------
    window: int | None = Field(
        None, ge=2, description="Documents per prompt. None: as many as fit the token budget."
    )
    stride: int | None = Field(
        None, ge=1, description="How far windows slide up. None: half a window."
    )
    token_budget: int | None = Field(
        None, ge=64, description="Most tokens in one prompt. None: the model's context length."
    )
    prefill_chunk: int | None = Field(
        None, ge=1, description="Tokens run through the layers at once. None: chosen by device."
    )

    # --- document states -------------------------------------------------------------------
    document_states: Literal["joint", "independent", "blind"] = Field(
        "joint",
        description="'independent': each document is encoded by itself, once, and its states are "
        "kept, so that a query costs its own tokens only; 'blind': of these only the keys that "
        "are read, which the query's tokens do not see otherwise; 'joint': nothing is kept.",
    )
    states_memory: int = Field(
        1024, ge=0, description="MiB of document states kept in memory; the oldest go first."
    )
    states_dir: str | None = Field(
        None, description="Folder where document states are kept for other processes and runs."
    )
    states_dtype: Literal["same", "float16", "bfloat16", "int8"] = Field(
        "same", description="Number format of kept states; 'same': the model's, nothing is lost."
    )
    cascade: int | None = Field(
        None,
        ge=2,
        description="With kept states: so many of the best documents are then read again with "
        "nothing kept, and take the first places in the order of that. None: none are.",
    )
    cascade_framework: Literal["listwise", "pointwise"] = Field(
        "listwise", description="How `cascade` reads: all in one prompt, or each by itself."
    )

    # --- the result ------------------------------------------------------------------------
    top_n: int | None = Field(None, ge=0, description="How many documents to return. None: all.")
    score_mode: Literal["raw", "share", "rank", "lift", "explained", "probability"] = Field(
        "raw",
        description="'raw': calibrated attention; 'share' of the list, adding up to 1; 'rank': 1, "
        "1/2, 1/3, ...; 'lift': log of a document's attention over that of the null query, by "
        "which documents are then ranked; 'explained': a score by the document alone, which "
        "compares across queries and lists, for attention (pointwise), likelihood (pointwise), "
        "mixed; 'probability': that by the profile's calibration; without the first stage both.",
    )
    score_threshold: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Leave out documents with a lower score. With score_mode='explained' or "
        "'probability' one threshold serves all queries; other scores depend on the query and the "
        "list, so that none does.",
    )
    min_answerable: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Return nothing where the list answers the query with a lower probability, "
        "by the abstention weights of the profile in use (`ranking.answerable`). Goes with "
        "score_mode='explained' and 'probability'.",
    )
    fusion: Literal["auto", "none", "rrf", "weighted", "prior"] = Field(
        "auto",
        description="Combine with the first stage: 'rrf' by both ranks, 'weighted' by both "
        "scores, each scaled to 0..1 over the list; 'prior' counts the given order as weak "
        "evidence. 'auto': what there is of the first stage, standardised: scores that are alike "
        "to cosines count as much as the model, others by their order and weakly, the given order "
        "where the profile in use was made with it.",
    )
    fusion_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the model's own ranking in 'rrf' and 'weighted'; the first stage "
        "has the rest.",
    )
    first_stage_weights: tuple[tuple[str, Weight], ...] | None = Field(
        None,
        description="For fusion='auto': weights beside the model's 1, by name, as a mapping or "
        "written 'dense=1,sparse=0.3': of lists of first-stage scores (one without a name is "
        "'scores'), whose standard scores then count, of the 'order' and of the 'embedder'. What "
        "has no name here is weighed as ever.",
        json_schema_extra=_allow_written_weights,
    )
    embedder: str | None = Field(
        None,
        min_length=1,
        description="Hub name or folder of a sentence-transformers model. For fusion='auto': where "
        "the first stage has no scores that are alike to cosines, those of its embeddings count. "
        "`Reranker(embedder=...)` also takes a LangChain, LlamaIndex or sentence-transformers "
        "object.",
    )
    near_duplicates: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Leave out a document whose text is at least this similar to a better one "
        "(Jaccard similarity of runs of five characters; 0.8 is a usual value).",
    )
    diversity: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Order by maximal marginal relevance: the weight of being unlike the documents "
        "that stand before, against relevance. 1: novelty alone, after the best one. None: off.",
    )
    deadline_ms: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Milliseconds in which a ranking answers with what can be done until then: "
        "documents that could not be scored keep their given order, and the result says so. None: "
        "a ranking takes as long as it takes.",
    )
    traces: Literal["none", "numbers", "texts"] = Field(
        "none",
        description="OpenTelemetry spans of rankings and of encoding: with 'numbers' what was "
        "ranked with, how much, how long, scores and ids; 'texts': queries and documents too. "
        "Needs the extra 'otel', and an application that sets up an SDK.",
    )
    on_error: Literal["raise", "passthrough"] = Field(
        "raise",
        description="'passthrough': if ranking fails, keep the given order and say so in the "
        "result and in the log.",
    )
