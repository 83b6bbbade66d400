"""The same list through every replacement of another re-ranker, by its owner's methods.

    python examples/swaps.py

All share one set of weights; LlamaIndex's and Haystack's would read metadata too, of which there
is none here, so that all agree. `docs/migrate/` has a page for each.
"""

from __future__ import annotations

import haystack
import pandas
from first_stage import PASSAGES, QUESTION
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from icr_rag import Reranker
from icr_rag.integrations.compat import langchain, llama_index
from icr_rag.integrations.haystack import ICRRanker as HaystackRanker
from icr_rag.integrations.langchain_cross_encoder import ICRCrossEncoder
from icr_rag.integrations.pyterrier import ICRRanker as PyTerrierRanker
from icr_rag.integrations.rerankers import ICRRanker
from icr_rag.integrations.sentence_transformers import CrossEncoder

NAMES, TEXTS = list(PASSAGES), list(PASSAGES.values())


def in_llama_index(component, **keywords) -> list[str]:
    nodes = [NodeWithScore(node=TextNode(text=text, id_=name)) for name, text in PASSAGES.items()]
    ranked = component(top_n=3, **keywords).postprocess_nodes(nodes, query_str=QUESTION)
    return [node.node_id for node in ranked]


def in_langchain(compressor) -> list[str]:
    documents = [Document(text, id=name) for name, text in PASSAGES.items()]
    return [document.id for document in compressor.compress_documents(documents, QUESTION)]


def in_haystack(reranker: Reranker) -> list[str]:
    documents = [haystack.Document(id=name, content=text) for name, text in PASSAGES.items()]
    ranked = HaystackRanker(reranker, top_k=3).run(QUESTION, documents)["documents"]
    return [document.id for document in ranked]


def in_pyterrier(reranker: Reranker) -> list[str]:
    rows = {"qid": "1", "query": QUESTION, "docno": NAMES, "text": TEXTS}
    return PyTerrierRanker(reranker)(pandas.DataFrame(rows))["docno"].tolist()[:3]


def main() -> None:
    reranker = Reranker(model="smollm2-135m")
    hits = CrossEncoder(reranker=reranker).rank(QUESTION, TEXTS, top_k=3)
    results = ICRRanker(reranker=reranker).rank(QUESTION, TEXTS, doc_ids=NAMES).top_k(3)
    rankings = {
        "LlamaIndex SentenceTransformerRerank": in_llama_index(
            llama_index.SentenceTransformerRerank, reranker=reranker
        ),
        "LlamaIndex LLMRerank": in_llama_index(llama_index.LLMRerank, reranker=reranker),
        "LlamaIndex RankGPTRerank": in_llama_index(llama_index.RankGPTRerank, reranker=reranker),
        "LangChain CrossEncoderReranker": in_langchain(
            langchain.CrossEncoderReranker(model=ICRCrossEncoder(reranker), top_n=3)
        ),
        "LangChain CohereRerank": in_langchain(
            langchain.CohereRerank(model="smollm2-135m", top_n=3)
        ),
        "sentence-transformers CrossEncoder": [NAMES[hit["corpus_id"]] for hit in hits],
        "rerankers": [result.doc_id for result in results],
        "Haystack": in_haystack(reranker),
        "PyTerrier": in_pyterrier(reranker),
    }
    for name, ranking in rankings.items():
        print(f"{name}: {', '.join(ranking)}")


if __name__ == "__main__":
    main()
