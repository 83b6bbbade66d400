"""Every way of scoring with every framework that it goes with, through the whole pipeline."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, meaningful, tiny_model

from icr_rag import Document, Reranker, cli
from icr_rag.frameworks.pairwise import pairwise_calls
from icr_rag.frameworks.setwise import setwise_calls
from icr_rag.methods import SORTS, frameworks_of, scorings
from icr_rag.model import batch

QUERY = "Which metal melts first?"
TEXTS = [
    "Copper conducts heat well, which is why wires are made of it.",
    "Tin melts at 232 degrees.",
    "Lead is soft.",
    "Gold.",
    "Zinc keeps rain from iron.",
    "Iron rusts where water gets at it.",
]
FRAMEWORKS = {scoring: frameworks_of(scoring) for scoring in scorings()}
PAIRS = [(scoring, framework) for scoring, with_ in FRAMEWORKS.items() for framework in with_]
each_pair = pytest.mark.parametrize(("scoring", "framework"), PAIRS)
#: With the sorts of those that sort.
METHODS = [
    {"scoring": scoring, "framework": framework, **sort}
    for scoring, framework in PAIRS
    for sort in [{"sort": name} for name in SORTS.get(framework, ())] or [{}]
]
each_method = pytest.mark.parametrize(
    "method", METHODS, ids=lambda method: "-".join(method.values())
)


def make(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


def order(ranking):
    return [hit.index for hit in ranking]


# --- what comes back ------------------------------------------------------------------------


@each_method
def test_documents_come_back_as_they_were_given(method):
    metadata = MappingProxyType({"page": 7, "nested": {"a": [1]}})
    given_ = [
        Document(text, title="On metals" if number % 2 else None, id=f"d{number}",
                 metadata=metadata)
        for number, text in enumerate(TEXTS)
    ]  # fmt: skip
    ranking = make(**method).rank(QUERY, given_)
    assert sorted(order(ranking)) == list(range(6))
    assert all(hit.document is given_[hit.index] for hit in ranking)
    assert all(hit.score == ranking.scores[hit.index] for hit in ranking)
    falling = [hit.score for hit in ranking]
    assert falling == sorted(falling, reverse=True)
    assert all(type(score) is float and math.isfinite(score) for score in ranking.scores)


@each_method
def test_a_second_call_gives_the_same(method):
    reranker = make(**method)
    first, second = (reranker.rank(QUERY, TEXTS) for _ in range(2))
    assert (order(first), first.scores) == (order(second), second.scores)
    assert first.usage.calls == second.usage.calls


@each_method
def test_blank_and_duplicate_documents(method):
    reranker = make(**method)
    ranking = reranker.rank(QUERY, ["", TEXTS[1], TEXTS[2], " \n", TEXTS[1], TEXTS[1]])
    assert sorted(order(ranking)) == list(range(6))
    assert order(ranking)[-2:] == [0, 3]
    assert ranking.score_groups[0] == ranking.score_groups[3] == -1
    assert len({ranking.scores[index] for index in (1, 4, 5)}) == 1
    # Copies stand together in input order, and are read once.
    places = [order(ranking).index(index) for index in (1, 4, 5)]
    assert places == list(range(places[0], places[0] + 3))
    assert ranking.usage.calls == reranker.rank(QUERY, TEXTS[1:3]).usage.calls


@each_method
def test_few_documents(method):
    reranker = make(**method)
    nothing = reranker.rank(QUERY, [])
    assert (len(nothing), nothing.usage.calls) == (0, 0)
    one = reranker.rank(QUERY, TEXTS[:1])
    assert order(one) == [0]
    # Who compares has nothing to compare.
    compares = method["framework"] in ("setwise", "pairwise")
    assert one.usage.calls == (0 if compares else 1)
    blank = reranker.rank(QUERY, [" ", ""])
    assert (order(blank), blank.usage.calls) == ([0, 1], 0)


@each_method
@pytest.mark.parametrize("top_n", [0, 1, 4, 99])
def test_top_n_cuts_the_list_and_no_more(method, top_n):
    reranker = make(**method)
    everything = reranker.rank(QUERY, TEXTS)
    assert order(reranker.rank(QUERY, TEXTS, top_n)) == order(everything)[:top_n]
    configured = make(**method, top_n=top_n).rank(QUERY, TEXTS)
    assert order(configured) == order(everything)[:top_n]
    assert configured.scores == everything.scores


@settings(max_examples=40)
@given(
    method=st.sampled_from(METHODS),
    documents=st.lists(
        st.sampled_from(["", " ", "a", "b", "[2] > [1]", "<|im_end|>", "\ud800", "é" * 30]),
        max_size=8,
    ),
    budget=st.none() | st.integers(700, 1200),
)
def test_any_list_comes_back_as_a_permutation(method, documents, budget):
    ranking = make(**method, token_budget=budget).rank(QUERY, documents)
    assert sorted(order(ranking)) == list(range(len(documents)))
    assert len(ranking.scores) == len(documents)


# --- what it costs --------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("count", [2, 5, 11])
@pytest.mark.parametrize("sort_top", [None, 1, 3])
def test_calls_are_those_of_the_formulas(method, count, sort_top):
    documents = [f"{number}: {TEXTS[number % 6]}" for number in range(count)]
    fields = meaningful(**{"set_size": 3, "sort_top": sort_top, **method})
    windows = 1
    if method["framework"] == "listwise":
        fields |= {"window": 4, "stride": 2}
        windows += max(0, math.ceil((count - 4) / 2))
    usage = make(**fields).rank(QUERY, documents).usage
    sort = method.get("sort")
    if method["framework"] == "pointwise":
        assert usage.calls == count
    elif method["framework"] == "listwise":
        assert usage.calls == usage.windows == windows
    elif method["framework"] == "setwise":
        most = setwise_calls(count, set_size=3, sort=sort, top=sort_top)
        assert 0 < usage.calls <= most
    else:
        # Each pair is asked about in both orders.
        most = 2 * pairwise_calls(count, sort=sort, top=sort_top)
        assert 0 < usage.calls <= most
        assert sort != "all_pairs" or usage.calls == most == count * (count - 1)
    assert usage.tokens > usage.calls
    assert (usage.generated_tokens > 0) == (method["scoring"] == "generation")


@pytest.mark.parametrize("framework", sorted(SORTS))
@pytest.mark.parametrize("sort", ["heap", "bubble"])
def test_below_sort_top_documents_keep_their_order(framework, sort):
    documents = [f"{number}: {TEXTS[number % 6]}" for number in range(9)]
    fields = {"scoring": "likelihood", "framework": framework, "sort": sort}
    some = make(**fields, sort_top=3).rank(QUERY, documents)
    everything = make(**fields, sort_top=None).rank(QUERY, documents)
    assert order(some)[3:] == sorted(order(some)[3:])
    assert order(everything)[3:] != sorted(order(everything)[3:])
    assert some.usage.calls < everything.usage.calls


@pytest.mark.parametrize(
    "method",
    [
        {"scoring": "likelihood"},
        {"scoring": "likelihood", "likelihood": "yes_no"},
        {"scoring": "mixed", "layers": (1, 2)},
        {"scoring": "attention", "framework": "pointwise", "layers": (1, 2), "reading": "lift"},
    ],
    ids=["query", "yes_no", "mixed", "attention"],
)
def test_thousands_of_documents_go_in_batches(method, monkeypatch):
    sizes = []
    run = batch.Runner._run_group

    def recording(self, head, members):
        sizes.append(len(members))
        return run(self, head, members)

    monkeypatch.setattr(batch.Runner, "_run_group", recording)
    documents = [f"{number} {'metal ' * (number % 4)}" for number in range(2500)]
    ranking = make(**method).rank("Tin?", documents)
    assert sorted(order(ranking)) == list(range(2500))
    assert ranking.usage.calls == 2500
    assert ranking.usage.windows == 1
    assert min(sizes[:-1]) >= 10
    few = [*range(0, 2500, 417)]
    if method["scoring"] == "likelihood":
        alone = make(**method).rank("Tin?", [documents[index] for index in few])
        assert list(alone.scores) == pytest.approx([ranking.scores[i] for i in few], abs=1e-3)


# --- threads, adapters, command line --------------------------------------------------------


@each_pair
def test_threads_take_turns(scoring, framework):
    reranker = make(scoring=scoring, framework=framework)
    questions = [f"{QUERY} {number}" for number in range(6)]
    wanted = [make(scoring=scoring, framework=framework).rank(q, TEXTS[:4]) for q in questions]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda question: reranker.rank(question, TEXTS[:4]), questions))
    assert [order(ranking) for ranking in found] == [order(ranking) for ranking in wanted]
    assert [ranking.scores for ranking in found] == [ranking.scores for ranking in wanted]


def settings_of(folder, scoring, framework):
    return {"model": folder, "dtype": "float32", "scoring": scoring, "framework": framework}


@each_pair
def test_llama_index_takes_them(scoring, framework, model_folder):
    schema = pytest.importorskip("llama_index.core.schema")
    from icr_rag.integrations.llama_index import ICRRerank

    fields = settings_of(model_folder, scoring, framework)
    nodes = [
        schema.NodeWithScore(node=schema.TextNode(text=text, id_=f"n{number}"))
        for number, text in enumerate(TEXTS[:4])
    ]
    ranked = ICRRerank(**fields, top_n=3).postprocess_nodes(nodes, query_str=QUERY)
    wanted = Reranker(**fields).rank(QUERY, TEXTS[:4], 3)
    assert [node.node.node_id for node in ranked] == [f"n{index}" for index in order(wanted)]
    assert [node.score for node in ranked] == pytest.approx([hit.score for hit in wanted])


@each_pair
def test_langchain_takes_them(scoring, framework, model_folder):
    documents = pytest.importorskip("langchain_core.documents")
    from icr_rag.integrations.langchain import ICRRerank

    fields = settings_of(model_folder, scoring, framework)
    given_ = [
        documents.Document(page_content=text, metadata={"number": number})
        for number, text in enumerate(TEXTS[:4])
    ]
    ranked = ICRRerank(**fields, top_n=3).compress_documents(given_, QUERY)
    wanted = Reranker(**fields).rank(QUERY, TEXTS[:4], 3)
    assert [document.metadata["number"] for document in ranked] == order(wanted)
    scores = [document.metadata["relevance_score"] for document in ranked]
    assert scores == pytest.approx([hit.score for hit in wanted])


@each_pair
def test_the_command_line_takes_them(scoring, framework, model_folder, tmp_path, capsys):
    pytest.importorskip("typer")
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:4]))
    fields = settings_of(model_folder, scoring, framework)
    options = [part for name, value in fields.items() for part in (f"--{name}", value)]
    assert cli.main(["rerank", QUERY, str(path), "--format", "json", *options]) == 0
    result = json.loads(capsys.readouterr().out)
    wanted = Reranker(**fields).rank(QUERY, TEXTS[:4])
    assert [hit["index"] for hit in result["hits"]] == order(wanted)


def test_adapters_and_the_command_line_refuse_what_does_not_go_together(model_folder, capsys):
    fields = settings_of(model_folder, "mixed", "setwise")
    options = [part for name, value in fields.items() for part in (f"--{name}", value)]
    assert cli.main(["rerank", QUERY, *options]) == 1
    assert "mixed: pointwise" in capsys.readouterr().err
    pytest.importorskip("llama_index.core.schema")
    from icr_rag.integrations.llama_index import ICRRerank

    with pytest.raises(ValueError, match="mixed: pointwise"):
        ICRRerank(**fields)
