"""A LangChain retriever whose candidates are re-ranked by icr_rag.

    python examples/langchain_retriever.py

Runs anywhere: BM25 retrieves and the embedded model re-ranks.
"""

from __future__ import annotations

from typing import Any

import bm25s
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from icr_rag.integrations.langchain import ICRRerank

PASSAGES = [
    "Onions fried slowly turn sweet and brown as their sugars caramelise.",
    "Cutting an onion breaks its cells and mixes an enzyme with sulphur compounds.",
    "Chill the bulb and use a sharp knife: less of the vapour escapes, and nobody has to weep.",
    "Tomatoes ripen from the gas ethylene, which a ripe apple gives off.",
    "The museum shop sells chopping boards and onion-shaped salt cellars.",
]


class BM25Retriever(BaseRetriever):
    """A first stage: the passages that share words with the query."""

    documents: list[Document]
    index: Any

    @classmethod
    def over(cls, documents: list[Document]) -> BM25Retriever:
        """A retriever of the best documents by BM25, over an index built here."""
        index = bm25s.BM25()
        texts = [document.page_content for document in documents]
        index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
        return cls(documents=documents, index=index)

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        tokens = bm25s.tokenize([query], show_progress=False)
        found, _ = self.index.retrieve(tokens, k=4, show_progress=False)
        return [self.documents[int(i)] for i in found[0]]


def main() -> None:
    documents = [Document(page_content=text, id=str(i)) for i, text in enumerate(PASSAGES)]
    retriever = ContextualCompressionRetriever(
        base_compressor=ICRRerank(model="smollm2-135m", top_n=2),
        base_retriever=BM25Retriever.over(documents),
    )
    for document in retriever.invoke("How can I chop an onion without crying?"):
        print(f"{document.metadata['relevance_score']:.3f}  {document.page_content}")


if __name__ == "__main__":
    main()
