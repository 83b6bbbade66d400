"""Prompts: spans, rows, chat templates, and text that looks like control tokens."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer

from icr_rag import Reranker
from icr_rag.prompts.joint import JointPrompts

TOKENIZER = byte_tokenizer()
CONTROL = ["<|im_start|>", "<|im_end|>", "<think>", "<pad>"]
CONTROL_IDS = set(TOKENIZER.convert_tokens_to_ids(CONTROL))


def builder(**changes):
    settings_ = {"instruction": "retrieval", "double_query": False, "null_query": "N/A", **changes}
    return JointPrompts(settings_.pop("tokenizer", TOKENIZER), **settings_)


texts = st.text(max_size=40) | st.lists(
    st.sampled_from([*CONTROL, "<", "|", "im_end", "😀", "e\u0301", "中文", "שלום", "\x00", "\n"])
).map("".join)


@settings(max_examples=200)
@given(documents=st.lists(texts, max_size=6), query=texts, double=st.booleans())
@example(
    documents=["<|im_end|>", "<<|im_end|>>", "<|im_<|im_end|>end|>"], query="<think>", double=True
)
def test_spans_and_rows_decode_to_their_texts(documents, query, double):
    prompts = builder(double_query=double)
    ids = prompts.encode_documents(documents)
    prompt = prompts.build(prompts.encode_query(query), ids)
    whole = prompt.token_ids(prompt.query)
    for document, span in zip(documents, prompt.spans, strict=True):
        assert TOKENIZER.decode(whole[span.start : span.end]) == " " + document
        assert CONTROL_IDS.isdisjoint(whole[span.start : span.end])
    assert TOKENIZER.decode(whole[prompt.rows(prompt.query)]) == " " + query
    null = prompt.token_ids(prompt.null)
    assert TOKENIZER.decode(null[prompt.rows(prompt.null)]) == " N/A"
    assert null[: len(prompt.prefix_ids)] == whole[: len(prompt.prefix_ids)]
    # Only the template's own control tokens act: one user turn, one assistant header.
    assert [i for i in whole if i in CONTROL_IDS] == TOKENIZER.convert_tokens_to_ids(
        ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    )


def test_the_whole_prompt():
    prompts = builder()
    prompt = prompts.build(prompts.encode_query("why?"), prompts.encode_documents(["One.", "Two."]))
    assert TOKENIZER.decode(prompt.token_ids(prompt.query)) == (
        "<|im_start|>user\nHere are some paragraphs:\n\n[1] One.\n\n[2] Two.\n\n"
        "Please find information that is relevant to the following query in the paragraphs "
        "above.\n\nQuery: why?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_tokenizer_without_a_template_gets_a_plain_layout():
    plain = byte_tokenizer(chat=False)
    prompts = builder(tokenizer=plain, instruction="question_answering")
    prompt = prompts.build(prompts.encode_query("why?"), prompts.encode_documents(["One."]))
    assert plain.decode(prompt.token_ids(prompt.query)) == (
        "Here are some paragraphs:\n\n[1] One.\n\nPlease answer the following question based on "
        "the information in the paragraphs above.\n\nQuestion: why?\n\n"
    )


def test_own_instruction_and_double_query():
    prompts = builder(instruction="Refute this claim.", double_query=True)
    prompt = prompts.build(prompts.encode_query("a b"), prompts.encode_documents(["One."]))
    text = TOKENIZER.decode(prompt.token_ids(prompt.query))
    assert "One.\n\nQuery: a b\n\nRefute this claim.\n\nQuery: a b<|im_end|>" in text


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("null", ["N/A", "a much longer null query than the query", None])
def test_cost_is_the_length_of_the_longest_prompt(double, null):
    prompts = builder(double_query=double, null_query=null)
    query = prompts.encode_query("why?")
    documents = prompts.encode_documents(["One.", "Two and three.", "Four"])
    prompt = prompts.build(query, documents)
    tails = [tail for tail in (prompt.query, prompt.null) if tail is not None]
    needed = prompts.overhead(query) + sum(prompts.document_cost(d, 3) for d in documents)
    assert needed == max(len(prompt.token_ids(tail)) for tail in tails)


def test_more_documents_than_markers_were_made_for():
    prompts = builder()
    prompt = prompts.build(prompts.encode_query("q"), prompts.encode_documents(["d"] * 150))
    assert "[150] d\n\nPlease" in TOKENIZER.decode(prompt.prefix_ids)


def test_lone_surrogates_are_read_as_unknown_characters(llama):
    ranking = Reranker.from_model(llama, TOKENIZER, layers=(1, 1)).rank(
        "\ud800?", ["a\udfffb", "c"]
    )
    assert ranking[0].document.text in ("a\udfffb", "c")


@pytest.mark.real_weights
@settings(max_examples=100)
@given(
    document=st.text(st.characters(max_codepoint=0xD7FF), max_size=60)
    | st.lists(
        st.sampled_from(["<|im_start|>", "<|im_end|>", "<repo_name>", "<|endoftext|>", "a", "\n"])
    ).map("".join)
)
def test_no_text_acts_as_a_control_token_of_the_embedded_model(embedded_prompts, document):
    ids = embedded_prompts.encode_documents([document])[0]
    assert set(ids).isdisjoint(embedded_prompts.tokenizer.all_special_ids)
    # Its vocabulary lacks some control characters; nothing else may get lost.
    assert _ordinary(embedded_prompts.tokenizer.decode(ids)) == " " + _ordinary(document)


def _ordinary(text):
    return "".join(c for c in text if (c.isalnum() and c.isascii()) or c in "<|>_\n ")


@pytest.fixture(scope="module")
def embedded_prompts(embedded_folder):
    from transformers import AutoTokenizer

    return builder(tokenizer=AutoTokenizer.from_pretrained(embedded_folder))
