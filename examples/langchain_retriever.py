"""A LangChain retriever whose candidates are re-ranked by icr_rag.

    python examples/langchain_retriever.py

MiniLM and Qdrant retrieve, the embedded model re-ranks.
"""

from __future__ import annotations

from first_stage import QUESTION, langchain_store
from langchain_classic.retrievers import ContextualCompressionRetriever

from icr_rag.integrations.langchain import ICRRerank


def main() -> None:
    store = langchain_store()
    print("retrieved:")
    for document, score in store.similarity_search_with_score(QUESTION, k=4):
        print(f"  {score:.3f}  {document.metadata['name']}")

    retriever = ContextualCompressionRetriever(
        base_compressor=ICRRerank(model="smollm2-135m", top_n=2),
        base_retriever=store.as_retriever(search_kwargs={"k": 4}),
    )
    print("re-ranked:")
    for document in retriever.invoke(QUESTION):
        print(f"  {document.metadata['relevance_score']:.3f}  {document.metadata['name']}")


if __name__ == "__main__":
    main()
