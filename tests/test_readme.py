"""The README's code runs and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.real_weights
def test_first_snippet_prints_its_output():
    shown = re.search(r"<!-- output -->\n```text\n(.*?)```", README, flags=re.DOTALL).group(1)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(BLOCKS[0], {})
    assert rows(printed.getvalue()) == [
        (pytest.approx(score, abs=0.01), text) for score, text in rows(shown)
    ]


def rows(output):
    """Score and text of each line. On some machines bfloat16 is chosen, which rounds."""
    lines = [line.split(maxsplit=1) for line in output.splitlines()]
    return [(float(score), text) for score, text in lines]


def test_llama_index_snippet():
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import TextNode
    from llama_index.core.settings import Settings

    block = next(b for b in BLOCKS if "integrations.llama_index" in b)
    Settings.llm, Settings.embed_model = MockLLM(), MockEmbedding(embed_dim=4)
    try:
        names = {"index": VectorStoreIndex([TextNode(text="a")])}
        exec(block, names)
    finally:
        Settings.llm = Settings.embed_model = None
    assert names["query_engine"]._node_postprocessors[0].top_n == 5


def test_langchain_snippet():
    pytest.importorskip("langchain_classic")
    from langchain_core.retrievers import BaseRetriever

    class Nothing(BaseRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return []

    block = next(b for b in BLOCKS if "integrations.langchain" in b)
    names = {"base_retriever": Nothing()}
    exec(block, names)
    assert names["retriever"].invoke("anything") == []


def test_from_model_snippet(llama, tokenizer):
    from icr_rag import Reranker

    block = next(b for b in BLOCKS if "from_model" in b)
    names = {"model": llama, "tokenizer": tokenizer, "Reranker": Reranker}
    exec(block, names)
    assert len(names["reranker"].rank("a?", ["b", "c"])) == 2


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_commands_and_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    continuous = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^make test$", continuous, flags=re.MULTILINE)
