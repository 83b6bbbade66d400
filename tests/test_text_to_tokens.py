"""From text to token ids with tokenizers of every kind; and that they stay their owners'."""

from __future__ import annotations

import copy
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from icr_rag import Reranker
from icr_rag.prompts.encoding import Encoder
from icr_rag.prompts.joint import JointPrompts
from icr_rag.prompts.query_likelihood import QueryLikelihoodPrompts


def words_tokenizer():
    """Whole words, and one token for all others."""
    vocabulary = {
        w: i for i, w in enumerate(["[UNK]", "<s>", "</s>", "tin", "melts", "at", "lead"])
    }
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", bos_token="<s>", eos_token="</s>"
    )


def blank_tokenizer():
    """As Llama 2's: a blank goes before whatever is tokenised; unknown characters are bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += list("abcdefghijklmnopqrstuvwxyz?.,:[]()0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("▁", letter) for letter in "tmq"]
    vocabulary |= {"".join(pair): len(vocabulary) + i for i, pair in enumerate(merges)}
    raw = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


# --- unknown characters -----------------------------------------------------------------------


def test_an_unknown_word_is_one_token():
    encoder = Encoder(words_tokenizer())
    assert encoder.encode(["tin melts at lead zinc"]) == [[3, 4, 5, 6, 0]]


def test_unknown_words_stay_text_where_they_have_another_role():
    tokenizer = words_tokenizer()
    tokenizer.pad_token = "[UNK]"
    assert set(Encoder(tokenizer).encode(["tin zinc"])[0]) <= {3}


# --- blanks -----------------------------------------------------------------------------------


def test_no_blank_goes_before_a_segment():
    tokenizer = blank_tokenizer()
    blank = tokenizer.convert_tokens_to_ids("▁")
    doubled = tokenizer(" tin", add_special_tokens=False)["input_ids"]
    assert doubled[0] == blank
    encoder = Encoder(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(encoder.encode([" tin"])[0])
    assert tokens == ["▁t", "i", "n"]
    assert tokenizer.convert_ids_to_tokens(encoder.encode(["\n"])[0]) == ["<0x0A>"]


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=5))
def test_segments_put_together_are_the_text(texts):
    """What each segment's tokens say is the segment, with every kind of tokenizer."""
    for tokenizer in (blank_tokenizer(), byte_tokenizer(chat=False)):
        encoder = Encoder(tokenizer)
        ids = [i for own in encoder.encode(texts) for i in own]
        said = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert said == "".join(texts).replace("▁", " ") or "▁" in "".join(texts)


def test_the_query_rows_hold_no_blank_token():
    tokenizer = blank_tokenizer()
    prompts = QueryLikelihoodPrompts(tokenizer)
    rows = prompts.encode_query("tin?")
    assert tokenizer.convert_ids_to_tokens(rows)[0] == "▁t"


# --- the beginning ----------------------------------------------------------------------------


def test_whatever_the_tokenizer_puts_first_comes_first():
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[gMASK]", "<sop>"]})
    first, second = tokenizer.convert_tokens_to_ids(["[gMASK]", "<sop>"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[("[gMASK]", first), ("<sop>", second)]
    )
    assert Encoder(tokenizer).start_ids() == [first, second]
    prompt = JointPrompts(tokenizer, "retrieval", False, "N/A").build([5, 6], [[7], [8]])
    assert prompt.prefix_ids[:2] == [first, second]


def test_what_the_tokenizer_puts_last_does_not():
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
    )
    assert Encoder(tokenizer).start_ids() == [1]


# --- the date ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        ("strftime_now('%d %b %Y %H:%M')", "26 Jul 2024 00:00"),
        ('strftime_now( "%Y" )', "2024"),
        ("strftime_now('%d' ~ ' %b')", "26 Jul 2024"),
        ("'yes' if strftime_now is defined else 'no'", "yes"),
    ],
)
def test_a_template_that_prints_the_date_prints_the_same_one(call, printed):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{{ " + call + " }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    before = tokenizer.chat_template
    header, _ = Encoder(tokenizer).chat_layout()
    assert tokenizer.decode(header) == printed
    assert tokenizer.chat_template == before


# --- the tokenizer is its owner's ---------------------------------------------------------------


def state(tokenizer):
    backend = tokenizer.backend_tokenizer
    return backend.truncation, backend.padding, len(tokenizer), tokenizer.chat_template


def test_ranking_leaves_truncation_and_padding_as_they_are():
    tokenizer = byte_tokenizer()
    reranker = Reranker.from_model(tiny_model("llama"), tokenizer, layers=(1, 2))
    reranker.warm_up()
    tokenizer(["a prompt " * 50], truncation=True, max_length=16, padding="max_length")
    before = state(tokenizer)
    long = ["tin melts " * 40, "oaks"]
    ranking = reranker.rank("metal", long)
    assert state(tokenizer) == before
    assert before[0] is not None
    fresh = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), layers=(1, 2))
    assert ranking.scores == fresh.rank("metal", long).scores


def test_a_tokenizer_that_truncates_is_copied_without():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    reranker = Reranker.from_model(tiny_model("llama"), tokenizer, layers=(1, 2))
    assert len(reranker.tokenizer("tin melts at 232 degrees")["input_ids"]) == 24
    assert tokenizer.backend_tokenizer.truncation is not None


def test_another_thread_may_truncate_meanwhile():
    tokenizer = byte_tokenizer()
    text = "tin melts at 232 degrees " * 20
    stop, wrong = threading.Event(), []

    def truncate():
        while not stop.is_set():
            ids = tokenizer(text, truncation=True, max_length=16)["input_ids"]
            if len(ids) != 16:
                wrong.append(len(ids))

    thread = threading.Thread(target=truncate)
    thread.start()
    try:
        expected = None
        for _ in range(20):
            reranker = Reranker.from_model(tiny_model("llama"), tokenizer, layers=(1, 2))
            scores = reranker.rank("metal", [text, "oaks"]).scores
            expected = expected or scores
            assert scores == expected
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_the_copy_is_made_once(llama):
    tokenizer = byte_tokenizer()
    first = Reranker.from_model(llama, tokenizer, layers=(1, 2))
    own = first.tokenizer
    assert first.with_config(top_n=1).tokenizer is own
    assert own is not tokenizer
    assert copy.deepcopy(first).tokenizer is own
