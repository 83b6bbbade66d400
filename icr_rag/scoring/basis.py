"""What absolute scores depend on beside the model and the texts, short enough to stand in a file.

A calibration says what the scores meant that it was fitted on. Scores of other heads, of another
prompt or measured from other null documents look the same and mean something else; so each
scorer tells its basis (`icr_rag.scoring.base.Scorer.basis`), and a calibration is used where it is
the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from icr_rag.scoring.null_documents import NULL_DOCUMENTS

if TYPE_CHECKING:
    from icr_rag.config import RerankerConfig
    from icr_rag.prompts.query_likelihood import QueryLikelihoodPrompts
    from icr_rag.scoring.selection import Selection

#: How messages call the parts.
PROMPT = "prompt"
HEADS = "heads and their weights"
NULLS = "documents without content"


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits that tell these JSON values from others."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_continued(prompts: QueryLikelihoodPrompts) -> dict[str, str]:
    """Of scores by a document that is continued with the query, and by that of null documents."""
    return {
        PROMPT: digest(prompts.head_ids, prompts.body([])),
        NULLS: " | ".join(NULL_DOCUMENTS),
    }


def of_yes_no(config: RerankerConfig, chat_template: object) -> dict[str, str]:
    """Of yes/no: the prompt by its template, because a chat's may write today's date into it."""
    kind = config.yes_no_template
    prompt = f"{kind} {digest(chat_template)}" if kind == "chat" else kind
    own = config.instruction != type(config).model_fields["instruction"].default
    return {PROMPT: f"{prompt} {digest(config.instruction)}" if own else prompt}


def of_heads(
    selection: Selection, config: RerankerConfig, null_query: str | None
) -> dict[str, str]:
    """Of readings of heads.

    Args:
        selection: what is read.
        null_query: the query that readings are compared with; None: with none.
    """
    weights = selection.weights
    read = (
        [sorted(selection.heads.items()), config.token_mask]
        if weights is None
        else [item.model_dump(mode="json") for item in weights]
    )
    return {HEADS: digest(read, selection.likelihood_weight, null_query)}


def differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The parts in which two differ."""
    names = sorted({*first, *second})
    return [name for name in names if first.get(name) != second.get(name)]
