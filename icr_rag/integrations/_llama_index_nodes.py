"""LlamaIndex's nodes and queries: what is read of them, and what is written into copies."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from icr_rag.config import RerankerConfig
from icr_rag.errors import ConfigError, InputError, shown
from icr_rag.integrations._told import Told, under_title
from icr_rag.types import Document, Ranking

#: Metadata key of the first stage's score, with ``keep_retrieval_score``.
RETRIEVAL_SCORE = "retrieval_score"
#: Metadata key of what went wrong, where ``on_error="passthrough"`` let the input order through.
RERANK_ERROR = "rerank_error"

#: What LlamaIndex's RetrieverTool makes of an agent's request: its arguments by position, a line
#: break, its arguments by name, a line break. One of the two is empty.
_BY_NAME = re.compile(r"\n(?:input|query|query_str|search_query|question) is (.*?)\n?", re.DOTALL)
_BY_POSITION = re.compile(r"(.*[^\n])\n\n", re.DOTALL)
#: What its QueryEngineTool makes of an argument that is not named "input": a dict as Python writes
#: it, with nothing escaped that Python does not escape.
_AS_DICT = re.compile(
    r"""\{'\w+': ('(?:[^'\\\n]|\\[\\'nrtxuU])*'|"(?:[^"\\\n]|\\[\\nrtxuU])*")\}"""
)


def clean_tool_query(query: str) -> str:
    """The question in a request that LlamaIndex's tools worded for an agent; others as they are.

    An agent that calls a ``RetrieverTool`` with ``input="Which metal?"`` makes the retriever, and
    the re-ranker after it, see ``"\\ninput is Which metal?\\n"``; a ``QueryEngineTool`` that it
    calls with ``question="Which metal?"`` makes them see ``"{'question': 'Which metal?'}"``. What
    is around the question is not the user's, and the model would attend with it too.

    Args:
        query: as it reached the re-ranker.

    Returns:
        the argument of a request with one argument, whose name, in the form with "is", must be
        one that questions have: input, query, query_str, search_query, question.
    """
    if match := _BY_NAME.fullmatch(query) or _BY_POSITION.fullmatch(query):
        question: str = match[1]
    elif match := _AS_DICT.fullmatch(query):
        try:
            question = ast.literal_eval(match[1])
        except (ValueError, SyntaxError):
            return query
    else:
        return query
    return question if question.strip() else query


def check_nodes(nodes: object) -> None:
    """Raise `InputError`, naming the wrong one, unless these are scored nodes with texts."""
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Sequence):
        raise InputError(f"nodes is a {type(nodes).__name__}; give a list of NodeWithScore")
    for index, scored in enumerate(nodes):
        if isinstance(scored, BaseNode):
            raise InputError(
                f"node {index} is a bare {type(scored).__name__}; give NodeWithScore(node=node)"
            )
        if not isinstance(scored, NodeWithScore):
            raise InputError(
                f"node {index} is a {type(scored).__name__}; allowed are NodeWithScore objects"
            )
        check_node(scored.node, index)


def check_node(node: object, index: int) -> None:
    """Raise `InputError` unless this is a node whose text is a string."""
    if not isinstance(node, BaseNode):
        raise InputError(
            f"node {index} is a {type(node).__name__}; allowed are LlamaIndex's nodes: TextNode "
            "and others"
        )
    text: object = node.get_content(metadata_mode=MetadataMode.NONE)
    if not isinstance(text, str):
        raise InputError(
            f"node {index} ({shown(node.node_id)}) has a text of type {type(text).__name__}; it "
            "must be str"
        )


def check_bundle(bundle: object) -> None:
    """Raise `InputError` unless this is a query bundle with a query that is not blank."""
    if bundle is None:
        raise InputError("called without a query; pass query_bundle= or query_str=")
    if not isinstance(bundle, QueryBundle):
        raise InputError(
            f"query_bundle is a {type(bundle).__name__}; give QueryBundle(query), or the query "
            "itself as query_str="
        )
    query: object = bundle.query_str
    if not isinstance(query, str):
        raise InputError(f"the query is a {type(query).__name__}; it must be a str")
    if not query.strip():
        raise InputError("called without a query: it is blank; give the question to rank for")


def texts_of(nodes: Sequence[NodeWithScore], mode: MetadataMode) -> list[str]:
    """What the model reads of each node: nothing of images and others without text of their own."""
    texts = []
    for scored in nodes:
        own = scored.node.get_content(metadata_mode=MetadataMode.NONE)
        texts.append(scored.node.get_content(metadata_mode=mode) if own.strip() else "")
    return texts


def check_mode(config: RerankerConfig, mode: MetadataMode) -> None:
    """Raise `ConfigError` where both ``metadata_mode`` and ``rank_fields`` say what is read."""
    if config.rank_fields is not None and mode != MetadataMode.EMBED:
        raise ConfigError(
            f"metadata_mode={mode.value!r} and rank_fields={config.rank_fields} both say which "
            "metadata the model reads; leave out one of them"
        )


def documents_of(
    nodes: Sequence[NodeWithScore], mode: MetadataMode, config: RerankerConfig
) -> Sequence[str | Document]:
    """The documents that nodes are to `Reranker`.

    As `texts_of`; where documents are split, metadata is repeated with each passage. With
    ``rank_fields`` text and metadata by themselves, of which the fields are taken. A name goes
    before what the node says of its metadata.
    """
    if config.rank_fields is None:
        texts = texts_of(nodes, mode)
        return texts if config.passages == "none" else _to_split(nodes, texts)
    check_mode(config, mode)
    return [
        Document(
            scored.node.get_content(metadata_mode=MetadataMode.NONE),
            id=scored.node.node_id,
            metadata=scored.node.metadata,
        )
        for scored in nodes
    ]


def _to_split(nodes: Sequence[NodeWithScore], texts: Sequence[str]) -> list[str | Document]:
    """Texts with what of them is repeated with each passage set apart."""
    documents: list[str | Document] = []
    for scored, text in zip(nodes, texts, strict=True):
        own = scored.node.get_content(metadata_mode=MetadataMode.NONE).rstrip()
        # A template of the user's own may put metadata behind the text.
        before = text.removesuffix(own) if own else text
        documents.append(under_title(before, own) if before + own == text else text)
    return documents


def unranked_nodes(
    nodes: Sequence[NodeWithScore], error: str, top_n: int | None
) -> list[NodeWithScore]:
    """New scored nodes in the order and with the scores given, each told what went wrong."""
    return [
        NodeWithScore(
            node=with_hidden_metadata(scored.node, {RERANK_ERROR: error}),
            score=0.0 if scored.score is None else float(scored.score),
        )
        for scored in list(nodes)[:top_n]
    ]


def ranked_nodes(
    nodes: Sequence[NodeWithScore],
    ranking: Ranking,
    top_n: int | None,
    *,
    keep_retrieval_score: bool,
    told: Told,
) -> list[NodeWithScore]:
    """New scored nodes, best first. The nodes given are not changed.

    Nodes that were not read, because they have no text, stand behind those that were, in input
    order; a threshold does not drop them. Where nothing answers there is nothing to see beside it.

    Args:
        ranking: of all nodes; its hits are at least the best ``top_n``.
        keep_retrieval_score, told: what to write into metadata.
    """
    if ranking.error is not None:
        return unranked_nodes(nodes, ranking.error, top_n)
    if ranking.abstained:
        return []
    order = [hit.index for hit in ranking]
    hits = {hit.index: hit for hit in ranking}
    listed = set(order)
    # What repeats a better one may have no score either, and was left out on purpose.
    listed |= set(ranking.duplicates)
    unread = [i for i, group in enumerate(ranking.score_groups) if group < 0 and i not in listed]
    result = []
    for index in (order + unread)[:top_n]:
        node = nodes[index].node
        values = told.of(ranking, index)
        if keep_retrieval_score:
            values = {RETRIEVAL_SCORE: nodes[index].score, **values}
        if index in hits:
            text = node.get_content(metadata_mode=MetadataMode.NONE)
            values = {**values, **told.passage_of(hits[index], text)}
        if values:
            node = with_hidden_metadata(node, values)
        result.append(NodeWithScore(node=node, score=ranking.scores[index]))
    return result


def with_hidden_metadata(node: BaseNode, values: Mapping[str, object]) -> BaseNode:
    """A copy with more metadata, which neither embedders nor LLMs get to read."""
    hidden = list(values)
    return node.model_copy(
        update={
            "metadata": {**node.metadata, **values},
            "excluded_embed_metadata_keys": node.excluded_embed_metadata_keys + hidden,
            "excluded_llm_metadata_keys": node.excluded_llm_metadata_keys + hidden,
        }
    )
