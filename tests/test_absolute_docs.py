"""docs/absolute-scores.md: its code runs, and does not answer when nothing answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.profiles import Abstention, Calibration, Profile, Shape
from icr_rag.profiles.calibration import FEATURES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "absolute-scores.md").read_text(encoding="utf-8")
FIRST, LLAMA_INDEX, LANGCHAIN = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
TEXTS = ["Lead is soft.", "Tin melts at 232 degrees.", "Zinc.", "Copper conducts heat."]


@pytest.fixture(params=[True, False], ids=["answers", "does not answer"])
def answers(request):
    return request.param


@pytest.fixture
def run(answers, model_folder, tmp_path):
    """Runs a snippet on a tiny model, whose lists answer, or do not."""
    fields = {"scoring": "likelihood", "score_mode": "explained"}
    with Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields) as ranker:
        basis = ranker.scorer.basis()
    path = tmp_path / "profile.json"
    Profile(
        model="tiny", shape=Shape.of(tiny_model("llama").config), scoring="likelihood",
        framework="pointwise", likelihood="query",
        calibration=Calibration(kind="logistic", slope=1.0, intercept=0.0, basis=basis),
        abstention=Abstention(
            intercept=5.0 if answers else -5.0, weights=dict.fromkeys(FEATURES, 0.0), basis=basis
        ),
    ).save(path)  # fmt: skip

    def of(code, **names):
        for written, meant in (("smollm2-135m", model_folder), ("profile.json", str(path))):
            assert code.count(f'"{written}"') == 1
            code = code.replace(f'"{written}"', repr(meant))
        exec(code, names)
        return names

    return of


def test_the_first_example(run, answers):
    found = run(FIRST)["ranking"]
    assert found.abstained is not answers
    assert len(found) == (2 if answers else 0)


def test_llama_index_does_not_answer(run, answers):
    pytest.importorskip("llama_index.core")
    from llama_index.core.llms import MockLLM
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, TextNode

    class Given(BaseRetriever):
        def _retrieve(self, query_bundle):
            return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]

    asked = []

    class Counting(MockLLM):
        def complete(self, *arguments, **keywords):
            asked.append(arguments)
            return super().complete(*arguments, **keywords)

    names = run(LLAMA_INDEX, retriever=Given(), llm=Counting())
    assert bool(asked) is answers
    assert bool(names["response"].source_nodes) is answers
    assert (names["text"] == "The documents do not say.") is not answers


def test_langchain_does_not_answer(run, answers):
    pytest.importorskip("langchain_core")
    from langchain_core.documents import Document

    asked = []

    def answer(state):
        asked.append(len(state["documents"]))
        return "Tin."

    names = run(LANGCHAIN, documents=[Document(text) for text in TEXTS], answer=answer)
    assert asked == ([4] if answers else [])
    assert names["text"] == ("Tin." if answers else "The documents do not say.")


def test_the_page_names_settings_and_options_that_there_are():
    for name in ("score_mode", "min_answerable", "score_threshold", "profile"):
        assert f"{name}=" in PAGE
        assert name in RerankerConfig.model_fields
    help_page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    commands = "".join(re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL))
    for option in re.findall(r"(--[a-z][a-z-]+)", commands):
        assert option in help_page
