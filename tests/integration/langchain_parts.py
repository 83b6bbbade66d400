"""Documents, a retriever and a failing reranker that the LangChain tests share."""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from icr_rag import Reranker
from icr_rag.errors import ModelLoadError

TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]
QUERY = "Which metal melts first?"


def make_documents(texts=TEXTS):
    return [
        Document(page_content=text, metadata={"i": i, "deep": {"list": [i]}}, id=f"d{i}")
        for i, text in enumerate(texts)
    ]


class FixedRetriever(BaseRetriever):
    """Always retrieves the same documents."""

    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.documents


class BrokenReranker(Reranker):
    """Its model cannot be loaded."""

    def _make_scorers(self, due=None):
        raise ModelLoadError("no such weights")
