"""What the log tells: documents that were cut. First-stage scores need no telling: they count."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig, Usage, cli
from icr_rag.calls.notices import logger, tell_cuts
from icr_rag.errors import InputError

TEXTS = ["Tin melts at 232 degrees.", "Lead.", "Copper conducts heat well.", " ", "Zinc is blue."]
QUERY = "Which metal melts first?"


def tiny(**fields):
    settings = fields if "scoring" in fields else {"layers": (1, 2), **fields}
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **settings)


def lines(caplog):
    """The warnings of icr_rag's loggers."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("icr_rag.") and record.levelno == logging.WARNING
    ]


# --- documents that were cut ------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"framework": "pointwise"},
        {"scoring": "likelihood"},
        {"document_states": "independent", "framework": "pointwise"},
        {"document_states": "independent", "framework": "listwise", "cascade": 2},
    ],
    ids=str,
)
def test_one_line_tells_what_was_cut(caplog, fields):
    ranker = tiny(max_document_tokens=10, token_budget=3000, **fields)
    ranking = ranker.rank(QUERY, TEXTS)
    assert ranking.usage.truncated == (0, 2, 4)
    (line,) = lines(caplog)
    assert line == (
        "3 of 5 documents were cut (positions 0, 2, 4); max_document_tokens=10, "
        "token_budget=3000 and the model's context (4096) decide"
    )


@pytest.mark.parametrize("fields", [{"token_budget": 900}, {}], ids=["token_budget", "context"])
def test_what_has_no_room_is_told_too(caplog, fields):
    ranking = tiny(**fields).rank(QUERY, [text * 400 for text in TEXTS])
    assert ranking.usage.truncated == (0, 1, 2, 4)
    assert len(lines(caplog)) == 1


def test_a_query_that_was_cut_is_in_the_same_line(caplog):
    tiny(max_query_tokens=5).rank(QUERY, TEXTS)
    tiny(max_query_tokens=5, max_document_tokens=10).rank(QUERY, TEXTS)
    alone, together = lines(caplog)
    assert alone == "the query was cut to max_query_tokens=5"
    assert together.startswith("3 of 5 documents were cut")
    assert together.endswith(f"; {alone}")


def test_every_call_has_its_line_and_whole_documents_have_none(caplog):
    ranker = tiny(max_document_tokens=10)
    ranker.rank(QUERY, ["Lead.", "Zinc."])
    ranker.rank(QUERY, [])
    ranker.rank(QUERY, [" "])
    assert lines(caplog) == []
    ranker.rank(QUERY, TEXTS)
    ranker.rank_many([QUERY, "Which is blue?"], [TEXTS, TEXTS])
    assert len(lines(caplog)) == 3


async def test_asynchronous_calls_tell_it(caplog):
    await tiny(max_document_tokens=10).arank(QUERY, TEXTS)
    assert len(lines(caplog)) == 1


@given(st.sets(st.integers(0, 999), max_size=30), st.booleans())
def test_few_positions_are_named_and_all_are_counted(places, query_cut):
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logger.addHandler(handler)
    try:
        usage = Usage(truncated=tuple(sorted(places)), query_truncated=query_cut)
        tell_cuts(usage, 1000, RerankerConfig(), None)
    finally:
        logger.removeHandler(handler)
    assert len(told) == bool(places or query_cut)
    if places:
        assert told[0].startswith(f"{len(places)} of 1000 documents")
        named = told[0].partition("(positions ")[2].partition(")")[0].removesuffix(", ...")
        assert named == ", ".join(map(str, sorted(places)[:5]))
        assert ("..." in told[0]) == (len(places) > 5)
        assert "context (unknown)" in told[0]


def test_commands_tell_it_once_in_their_own_words(tmp_path, model_folder, capsys, monkeypatch):
    # As where nobody has set up logging: Python prints warnings.
    monkeypatch.setattr(logging.root, "handlers", [])
    documents = tmp_path / "documents.txt"
    documents.write_text("\n".join(TEXTS), encoding="utf-8")
    arguments = [QUERY, str(documents), "--model", model_folder, "--dtype", "float32"]
    assert cli.main(["rerank", *arguments, "--max-document-tokens", "10"]) == 0
    shown = capsys.readouterr().err
    assert shown.count("documents were cut") == 1
    assert "note: " in shown
    assert not [h for h in logger.handlers if isinstance(h, logging.NullHandler)]


# --- first-stage scores -----------------------------------------------------------------------

SCORES = [1.0, 2.0, 3.0, 4.0, 5.0]


def test_scores_that_are_given_are_used(caplog):
    """By ``fusion="auto"`` their order, as weak evidence, where they are not alike to cosines; also
    where no profile counts a first stage."""
    plain = tiny().rank(QUERY, TEXTS)
    found = tiny().rank(QUERY, TEXTS, retrieval_scores=SCORES)
    assert found.scores == tiny(fusion="prior").rank(QUERY, TEXTS, retrieval_scores=SCORES).scores
    assert found.scores != plain.scores
    # Where one lacks, the others count.
    some = tiny().rank(QUERY, TEXTS, retrieval_scores=[None, *SCORES[1:]])
    assert some.scores not in (plain.scores, found.scores)
    assert some.usage.fused == found.usage.fused == {"model": 1.0, "order of scores": 0.3}
    assert lines(caplog) == []


@pytest.mark.parametrize("fusion", ["auto", "none", "rrf", "weighted", "prior"])
def test_no_fusion_tells_anything(caplog, fusion):
    ranker = tiny(fusion=fusion)
    ranker.rank(QUERY, TEXTS, retrieval_scores=SCORES)
    ranker.warm_up()
    assert lines(caplog) == []


def test_warming_up_tells_nothing(caplog):
    tiny().warm_up()
    assert lines(caplog) == []


def test_scores_are_checked_before_it_is_known_whether_they_count():
    with pytest.raises(InputError, match=r"retrieval_scores has length 1; .* \(5\)"):
        tiny().rank(QUERY, TEXTS, retrieval_scores=[1.0])
