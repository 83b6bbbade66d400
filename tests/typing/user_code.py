"""What users write, checked by mypy and pyright: `make typecheck`. Not run."""

from __future__ import annotations

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore

from icr_rag import Document, Ranking, Reranker, RerankerConfig
from icr_rag.integrations.langchain import ICRRerank as LangChainRerank
from icr_rag.integrations.llama_index import ICRRerank as LlamaIndexRerank
from icr_rag.integrations.sentence_transformers import CrossEncoder


def rank(query: str, texts: list[str]) -> list[tuple[int, float, str]]:
    reranker = Reranker(model="smollm2-135m", layers=(10, 13))
    ranking: Ranking = reranker.rank(query, texts, top_n=5)
    mixed = reranker.rank(query, ["text", Document("text"), {"text": "text", "title": "title"}])
    scores: tuple[float, ...] = mixed.scores
    tokens: int = ranking.usage.tokens
    best: str = ranking[0].document.text
    print(tokens, scores, best)
    return [(hit.index, hit.score, hit.document.text) for hit in ranking]


async def rank_without_blocking(query: str, texts: list[str]) -> Ranking:
    with Reranker(RerankerConfig.from_file("reranker.yaml"), top_n=3) as reranker:
        return await reranker.arank(query, texts)


def in_llama_index(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    rerank: BaseNodePostprocessor = LlamaIndexRerank(model="smollm2-135m", top_n=5)
    return rerank.postprocess_nodes(nodes, query_str="which?")


def in_langchain(retriever: BaseRetriever) -> list[LangChainDocument]:
    compressor = LangChainRerank.from_config("reranker.yaml", top_n=5)
    results = compressor.rerank(["a", "b"], "which?", top_n=1)
    index: int = results[0]["index"]
    print(index)
    chain = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=retriever)
    return chain.invoke("which?")


def in_place_of_a_cross_encoder(pairs: list[tuple[str, str]]) -> list[float]:
    scores: list[float] = CrossEncoder("smollm2-135m").predict(pairs).tolist()
    return scores
