"""A LlamaIndex query engine whose candidates are re-ranked by icr_rag.

    python examples/llama_index_query_engine.py

MiniLM and Qdrant retrieve, the embedded model re-ranks. A mock LLM stands in for the one that
would write the answer; examples/shared_llm.py lets the same weights do both.
"""

from __future__ import annotations

from first_stage import QUESTION, llama_index_store
from llama_index.core.llms import MockLLM

from icr_rag.integrations.llama_index import ICRRerank


def main() -> None:
    index = llama_index_store()
    print("retrieved:")
    for source in index.as_retriever(similarity_top_k=4).retrieve(QUESTION):
        print(f"  {source.score:.3f}  {source.metadata['name']}")

    query_engine = index.as_query_engine(
        llm=MockLLM(),
        similarity_top_k=4,
        node_postprocessors=[ICRRerank(model="smollm2-135m", top_n=2)],
    )
    print("re-ranked:")
    for source in query_engine.query(QUESTION).source_nodes:
        print(f"  {source.score:.3f}  {source.metadata['name']}")


if __name__ == "__main__":
    main()
