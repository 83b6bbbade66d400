"""A LangGraph agent: retrieve, re-rank, answer, with a checkpoint after each step.

    python examples/langgraph_agent.py

The re-ranker is a node of its own (`as_runnable`), so that its run and its result are visible. The
embedded LLM writes the answer with the same weights.
"""

from __future__ import annotations

from typing import TypedDict

from first_stage import QUESTION, langchain_store
from langchain_core.documents import Document
from langchain_huggingface import HuggingFacePipeline
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from transformers import pipeline

from icr_rag.integrations.langchain import ICRRerank
from icr_rag.model.embedded import ensure_embedded_model


class State(TypedDict):
    """What the steps pass on."""

    query: str
    documents: list[Document]
    answer: str


def main() -> None:
    generator = pipeline("text-generation", str(ensure_embedded_model("smollm2-135m")))
    llm = HuggingFacePipeline(
        pipeline=generator,
        pipeline_kwargs={"max_new_tokens": 40, "do_sample": False, "return_full_text": False},
    )
    store = langchain_store()

    def retrieve(state: State) -> dict:
        return {"documents": store.similarity_search(state["query"], k=4)}

    def answer(state: State) -> dict:
        context = "\n".join(document.page_content for document in state["documents"])
        return {"answer": llm.invoke(f"{context}\n\nQuestion: {state['query']}\nAnswer:")}

    graph = StateGraph(State)
    graph.add_node("retrieve", retrieve)
    graph.add_node("rerank", ICRRerank.from_llm(llm, top_n=2).as_runnable(output_key="documents"))
    graph.add_node("answer", answer)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "rerank")
    graph.add_edge("rerank", "answer")
    graph.add_edge("answer", END)
    agent = graph.compile(checkpointer=InMemorySaver())

    thread = {"configurable": {"thread_id": "1"}}
    result = agent.invoke({"query": QUESTION}, thread)
    for document in result["documents"]:
        print(f"{document.metadata['relevance_score']:.3f}  {document.metadata['name']}")
    print(f"checkpoints: {len(list(agent.get_state_history(thread)))}")
    print(f"answer: {' '.join(result['answer'].split())}")


if __name__ == "__main__":
    main()
