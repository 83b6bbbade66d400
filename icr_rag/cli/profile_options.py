"""The options of ``icr-rag profile`` that say which queries are asked and what teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Queries = Annotated[
    str,
    typer.Option(
        metavar="KIND|FILE",
        help="labelled; label-free: made from the documents; both; auto: labelled where "
        "there are labels; or a FILE of queries that people asked, one a line or .jsonl with "
        "query or text, for which BM25 finds candidates in DATA and of which scores alone "
        "teach. Several with commas.",
    ),
]

Kinds = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Kinds of label-free queries: title; sentence; passage; keywords, a few of a "
        "sentence; heading, of a section in Markdown or reST; docstring, its summary line, in "
        "Python files; question, which the model writes.",
    ),
]

Language = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of label-free and asked queries' documents: whose stems BM25 uses, german for "
        "example; none: words as they are. Scripts without spaces are cut into pairs of "
        "characters whatever it says. Default: english.",
        show_default=False,
    ),
]

TeacherNames = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[,NAME...]",
        help="What learned heads are taught by: labels; the model's own likelihood; blend, "
        "both half and half; its mixed or yes_no scores; another model by name or path, which "
        "scores by likelihood; or a FILE of scores from any re-ranker, a TREC run or .jsonl "
        "with query_id, doc_id and score. Several are averaged. Default: blend where there "
        "are labels, else likelihood.",
        show_default=False,
    ),
]

WritePairs = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Only write the pairs of query and document that a FILE of scores must have, as "
        ".jsonl.",
        show_default=False,
    ),
]

Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="How many heads to choose. Default: 64; all where scores teach.",
        show_default=False,
    ),
]

Penalty = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="X",
        help="Penalty of learned weights. Default: 20 for labels, 15 for scores, 40 for both.",
        show_default=False,
    ),
]
