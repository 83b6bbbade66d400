"""Adapters that tell in metadata, each made and given documents in the same way."""

from __future__ import annotations

TEXTS = ["Tin melts at 232 degrees.", "Lead.", "Copper conducts heat well.", "Zinc."]
QUERY = "Which metal melts first?"


class OfLangChain:
    needs = "langchain_core"

    def make(self, *arguments, **fields):
        from icr_rag.integrations.langchain import ICRRerank

        return ICRRerank(*arguments, **fields)

    def documents(self):
        from langchain_core.documents import Document

        return [Document(page_content=text, metadata={"i": i}) for i, text in enumerate(TEXTS)]


class OfLlamaIndex:
    needs = "llama_index.core"

    def make(self, *arguments, **fields):
        from llama_index.core.schema import MetadataMode

        from icr_rag.integrations.llama_index import ICRRerank

        return ICRRerank(*arguments, metadata_mode=MetadataMode.NONE, **fields)

    def documents(self):
        from llama_index.core.schema import NodeWithScore, TextNode

        return [
            NodeWithScore(node=TextNode(text=text, metadata={"i": i}), score=0.5)
            for i, text in enumerate(TEXTS)
        ]

    def hidden(self, found, key):
        """The metadata of nodes, once it is certain that nobody reads this key of them."""
        from llama_index.core.schema import MetadataMode

        for scored in found:
            for mode in (MetadataMode.EMBED, MetadataMode.LLM):
                assert key not in scored.node.get_content(metadata_mode=mode)
        return [scored.node.metadata for scored in found]


def cohere(*arguments, **fields):
    """An adapter that makes another one for a call's own model."""
    from icr_rag.integrations.compat.langchain import CohereRerank

    return CohereRerank(*arguments, top_n=None, **fields)
