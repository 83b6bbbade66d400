"""LangChain's own standard suites over a compression retriever and the tool made of it."""

from __future__ import annotations

from typing import Any

import pytest

for module in ("langchain_tests", "langchain_classic"):
    pytest.importorskip(module)

from langchain_classic.retrievers import ContextualCompressionRetriever  # noqa: E402
from langchain_core.documents import Document  # noqa: E402
from langchain_core.retrievers import BaseRetriever  # noqa: E402
from langchain_core.tools import create_retriever_tool  # noqa: E402
from langchain_tests.integration_tests import (  # noqa: E402
    RetrieversIntegrationTests,
    ToolsIntegrationTests,
)
from langchain_tests.unit_tests import ToolsUnitTests  # noqa: E402
from tiny import byte_tokenizer, tiny_model  # noqa: E402

from icr_rag import Reranker  # noqa: E402
from icr_rag.integrations.langchain import ICRRerank  # noqa: E402

TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well.", "Zinc."]


class FirstStage(BaseRetriever):
    """The first so many texts."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any, k: int = 4):
        return [Document(page_content=text) for text in TEXTS[:k]]


class Reranked(ContextualCompressionRetriever):
    """The chain that users build, with the number of results by the name that the suite uses."""

    def __init__(self, k: int = 4) -> None:
        engine = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))
        super().__init__(base_compressor=ICRRerank(engine, top_n=k), base_retriever=FirstStage())


class TestRetriever(RetrieversIntegrationTests):
    """Number of results, documents, both paths."""

    @property
    def retriever_constructor(self):
        return Reranked

    @property
    def retriever_query_example(self):
        return "Which metal melts first?"


def make_tool():
    return create_retriever_tool(Reranked(), "metals", "Search what is known about metals.")


class _OfTheTool:
    @property
    def tool_constructor(self):
        return make_tool()

    @property
    def tool_invoke_params_example(self):
        return {"query": "Which metal melts first?"}


class TestToolUnit(_OfTheTool, ToolsUnitTests):
    """Name, schema, construction."""


class TestToolIntegration(_OfTheTool, ToolsIntegrationTests):
    """Calls on both paths."""
