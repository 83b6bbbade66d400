"""Encoding ahead of time: from the command line and from both frameworks' indexing."""

from __future__ import annotations

import json

import pytest
from tiny import byte_tokenizer, tiny_model
from typer.testing import CliRunner

from icr_rag import Reranker
from icr_rag.cli.app import app
from icr_rag.errors import ConfigError

TEXTS = ["tin melts at 232 degrees", "oaks carry acorns", "zinc melts at 420 degrees"]
WAY = {"framework": "pointwise", "layers": (1, 2), "document_states": "independent"}


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def words(result):
    """What was printed, however it was wrapped."""
    return " ".join(result.output.split())


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text(
        "\n".join(json.dumps({"text": text, "id": str(i)}) for i, text in enumerate(TEXTS))
    )
    return path


def test_another_process_ranks_over_what_was_encoded(model_folder, notes, tmp_path):
    shared = ("--model", model_folder, "--framework", "pointwise", "--layers", "1-2",
              "--states-dir", tmp_path / "states")  # fmt: skip
    result = invoke("encode", notes, *shared)
    assert result.exit_code == 0, result.output
    assert "3 documents have states" in words(result)
    assert "3 new" in words(result)
    assert "0 new, 0 tokens" in words(invoke("encode", notes, *shared))
    ranked = invoke("rerank", "what melts?", notes, "--document-states", "independent", *shared,
                    "-f", "json")  # fmt: skip
    assert ranked.exit_code == 0, ranked.output
    found = json.loads(ranked.stdout)
    plain = invoke("rerank", "what melts?", notes, "--model", model_folder, "--framework",
                   "pointwise", "--layers", "1-2", "-f", "json")  # fmt: skip
    expected = json.loads(plain.stdout)
    assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in expected["hits"]]
    assert found["usage"]["tokens"] < expected["usage"]["tokens"] / 2


def test_encode_wants_a_folder(model_folder, notes):
    result = invoke("encode", notes, "--model", model_folder)
    assert result.exit_code != 0
    assert "--states-dir" in str(result.exception)


def make():
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **WAY)


def test_llama_index_ingestion():
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.schema import NodeWithScore, TextNode

    from icr_rag.integrations.llama_index import ICREncode, ICRRerank

    reranker = make()
    nodes = [TextNode(text=text, metadata={"page": 3}) for text in TEXTS]
    before = [node.model_dump() for node in nodes]
    out = IngestionPipeline(transformations=[ICREncode(reranker)]).run(nodes=nodes)
    assert [node.model_dump() for node in out] == before
    scored = [NodeWithScore(node=node) for node in out]
    tokens = []
    reranker.rank = _noting(reranker.rank, tokens)
    ICRRerank(reranker).postprocess_nodes(scored, query_str="what melts?")
    # The query's tokens and one of each document's prompt, twice over for the null query.
    assert tokens[0] < len(TEXTS) * 20


def test_langchain_transformer():
    from langchain_core.documents import Document

    from icr_rag.integrations.langchain import ICREncode

    reranker = make()
    documents = [Document(page_content=text, metadata={"a": 1}) for text in TEXTS]
    assert ICREncode(reranker).transform_documents(documents) == documents
    assert reranker.encode(TEXTS).new == 0


def test_adapters_keep_states_by_default_and_say_what_is_wrong():
    from icr_rag.integrations.langchain import ICREncode as ForLangChain
    from icr_rag.integrations.llama_index import ICREncode as ForLlamaIndex

    for kind in (ForLangChain, ForLlamaIndex):
        made = kind(model="some/model", states_dir="states")
        config = made.config if kind is ForLlamaIndex else made.reranker.config
        assert config.document_states == "independent"
        with pytest.raises(ConfigError, match="generation"):
            kind(scoring="generation")


def _noting(rank, tokens):
    def wrapped(*arguments, **options):
        ranking = rank(*arguments, **options)
        tokens.append(ranking.usage.tokens)
        return ranking

    return wrapped
