"""A LlamaIndex query engine whose candidates are re-ranked by icr_rag.

    python examples/llama_index_query_engine.py

Runs anywhere: BM25 retrieves, the embedded model re-ranks, and a mock LLM stands in for the one
that would write the answer.
"""

from __future__ import annotations

import bm25s
from llama_index.core import QueryBundle
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from icr_rag.integrations.llama_index import ICRRerank

PASSAGES = [
    "Onions fried slowly turn sweet and brown as their sugars caramelise.",
    "Cutting an onion breaks its cells and mixes an enzyme with sulphur compounds.",
    "Chill the bulb and use a sharp knife: less of the vapour escapes, and nobody has to weep.",
    "Tomatoes ripen from the gas ethylene, which a ripe apple gives off.",
    "The museum shop sells chopping boards and onion-shaped salt cellars.",
]


class BM25Retriever(BaseRetriever):
    """A first stage: the passages that share words with the query."""

    def __init__(self, nodes: list[TextNode]) -> None:
        super().__init__()
        self._nodes = nodes
        self._index = bm25s.BM25()
        self._index.index(self._tokens([node.text for node in nodes]), show_progress=False)

    @staticmethod
    def _tokens(texts: list[str]):
        return bm25s.tokenize(texts, stopwords="en", show_progress=False)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found, scores = self._index.retrieve(
            self._tokens([query_bundle.query_str]), k=4, show_progress=False
        )
        return [
            NodeWithScore(node=self._nodes[int(i)], score=float(s))
            for i, s in zip(found[0], scores[0], strict=True)
        ]


def main() -> None:
    nodes = [TextNode(text=text) for text in PASSAGES]
    query_engine = RetrieverQueryEngine.from_args(
        BM25Retriever(nodes),
        llm=MockLLM(),
        node_postprocessors=[ICRRerank(model="smollm2-135m", top_n=2)],
    )
    response = query_engine.query("How can I chop an onion without crying?")
    for source in response.source_nodes:
        print(f"{source.score:.3f}  {source.node.get_content()}")


if __name__ == "__main__":
    main()
