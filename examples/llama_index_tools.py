"""Re-ranking an agent's tools: of many, only those that fit the request reach the LLM.

python examples/llama_index_tools.py
"""

from __future__ import annotations

from first_stage import llama_index_embedding
from llama_index.core import VectorStoreIndex
from llama_index.core.objects import ObjectIndex
from llama_index.core.tools import FunctionTool

from icr_rag.integrations.llama_index import ICRRerank

TOOLS = {
    "book_train": "Book a seat on a train between two cities.",
    "refund_ticket": "Give the money for a ticket back that will not be used.",
    "weather": "Tell the weather of the next days in a place.",
    "open_account": "Open a bank account for a new customer.",
    "transfer_money": "Send money from one bank account to another.",
    "lost_card": "Block a bank card that was stolen or lost.",
}
REQUEST = "Somebody took my purse, nobody should be able to pay with my card"


def make_tool(name: str, description: str) -> FunctionTool:
    return FunctionTool.from_defaults(lambda: f"{name} done", name=name, description=description)


def main() -> None:
    tools = [make_tool(name, description) for name, description in TOOLS.items()]
    index = ObjectIndex.from_objects(
        tools, index_cls=VectorStoreIndex, embed_model=llama_index_embedding()
    )
    retriever = index.as_retriever(
        similarity_top_k=4, node_postprocessors=[ICRRerank(model="smollm2-135m", top_n=2)]
    )
    for tool in retriever.retrieve(REQUEST):
        print(tool.metadata.name)


if __name__ == "__main__":
    main()
