"""From text to token ids, without letting a text's content act as a control token."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from icr_rag.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACEHOLDER = "ICRRAGUSERMESSAGE"
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


class Encoder:
    """Tokenises texts and the chat template's frame.

    Args:
        tokenizer: a transformers tokenizer. Its state is not changed. Not safe under threads.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._control_ids, self._control_pattern = _control_tokens(tokenizer)
        self._anchor = _anchor(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of plain text: what looks like a control token does not act as one.

        A control token's text is cut after its first character and the pieces are tokenised
        apart, which no tokenizer turns into the token again. The tokenizer's own switches
        (truncation, special-token splitting) are state shared with its other users and stay
        untouched.
        """
        pieces: list[str] = []
        owners: list[int] = []
        for number, text in enumerate(texts):
            # A lone surrogate is no character; no tokenizer takes it.
            clean = _LONE_SURROGATES.sub("\ufffd", text)
            for piece in self._cut(clean):
                pieces.append(piece)
                owners.append(number)
        result: list[list[int]] = [[] for _ in texts]
        if not pieces:
            return result
        encoded = self._ids(pieces)
        for number, piece, ids in zip(owners, pieces, encoded, strict=True):
            if self._control_ids.isdisjoint(ids):
                result[number] += ids
            else:
                # Normalisation made a control token out of other characters.
                result[number] += self._encode_characters(piece)
        return result

    def _cut(self, text: str) -> list[str]:
        if self._control_pattern is None:
            return [text] if text else []
        cuts = [match.start() + 1 for match in self._control_pattern.finditer(text)]
        bounds = [0, *cuts, len(text)]
        return [text[a:b] for a, b in itertools.pairwise(bounds) if a < b]

    def _encode_characters(self, text: str) -> list[int]:
        ids: list[int] = []
        for character in text:
            own = self._ids([character])[0]
            if not self._control_ids.isdisjoint(own):
                own = self._ids(["\ufffd"])[0]
            # What stands for an unknown character must not be a control token either.
            ids += [i for i in own if i not in self._control_ids]
        return ids

    def _ids(self, pieces: list[str]) -> list[list[int]]:
        """Token ids of each piece as it stands in the middle of a text.

        SentencePiece tokenizers of Llama 2's kind put a blank before whatever they are given. In
        front of each segment it would be a token that the text does not have, and a query row. A
        segment is then tokenised behind a line break, which is taken away again.
        """
        if self._anchor is None:
            found: list[list[int]] = self.tokenizer(
                pieces, add_special_tokens=False, verbose=False
            )["input_ids"]
            return found
        text, before = self._anchor
        encoded = self.tokenizer(
            [text + piece for piece in pieces], add_special_tokens=False, verbose=False
        )["input_ids"]
        alone = self.tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]
        return [
            ids[len(before) :] if ids[: len(before)] == before else own
            for ids, own in zip(encoded, alone, strict=True)
        ]

    def chat_layout(self) -> tuple[list[int], list[int]]:
        """Token ids before and after the user's message.

        Taken from the tokenizer's own chat template; a plain layout where it has none.

        Raises:
            ModelLoadError: if the template cannot be read or refuses a user's message.
        """
        if getattr(self.tokenizer, "chat_template", None):
            message = [{"role": "user", "content": _PLACEHOLDER}]
            try:
                text = str(
                    self.tokenizer.apply_chat_template(
                        message,
                        tokenize=False,
                        add_generation_prompt=True,
                        chat_template=without_today(self.tokenizer.get_chat_template()),
                    )
                )
            # A template is a program, and may raise whatever it likes.
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise ModelLoadError(
                    f"the chat template of {self.tokenizer.name_or_path or 'the tokenizer'!r} "
                    f"fails on one user message ({reason}); mend it (chat_template.jinja or "
                    "tokenizer_config.json), set tokenizer.chat_template to one that works, or to "
                    "None for a plain layout"
                ) from error
            before, found, after = text.partition(_PLACEHOLDER)
            if found and _PLACEHOLDER not in after:
                return self.encode_template(before), self.encode_template(after)
        return self.start_ids(), self.encode_template("\n\n")

    def start_ids(self) -> list[int]:
        """What the tokenizer itself puts before a plain text: one token, or several."""
        with_start: list[int] = self.tokenizer("a", verbose=False)["input_ids"]
        bare: list[int] = self.tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
        for begin in range(len(with_start) - len(bare) + 1):
            if with_start[begin : begin + len(bare)] == bare:
                return with_start[:begin]
        return []

    def encode_template(self, text: str) -> list[int]:
        """Token ids of a template's text, in which control tokens do act."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids if text else []


#: The moment at which chat templates that print a date are rendered: prompts, and what is kept of
#: them, must not change from day to day. It is the date that Llama 3's own template falls back to.
MOMENT = datetime.datetime(2024, 7, 26)


_DATE = re.compile(r"""strftime_now\(\s*(?:'([^'\\]*)'|"([^"\\]*)")\s*\)""")
#: For calls whose layout is computed: a date that all of them can be.
_MACRO = "{%- macro strftime_now(layout) -%}" + f"{MOMENT:%d %b %Y}" + "{%- endmacro -%}"


def without_today(template: str) -> str:
    """A chat template in which today is always `MOMENT`."""

    def literal(match: re.Match[str]) -> str:
        return repr(MOMENT.strftime(match[1] if match[1] is not None else match[2]))

    fixed = _DATE.sub(literal, template)
    return _MACRO + fixed if "strftime_now" in fixed else fixed


def _anchor(tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]] | None:
    """A text to tokenise behind, and its ids, for tokenizers that put a blank before a text; None
    for those that do not."""

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def words(text: str) -> list[str]:
        return list(map(str, tokenizer.convert_ids_to_tokens(ids(text))))

    first = words("a")[:1]
    if not first or not first[0].startswith("▁"):
        return None
    for text in ("\n", ".", ")"):
        before = ids(text)
        after = ids(text + "a")
        if after[: len(before)] == before and len(after) > len(before):
            return text, before
    return None


def _control_tokens(
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[frozenset[int], re.Pattern[str] | None]:
    """Ids of the tokens that structure a chat, and a pattern that finds their texts.

    Those marked special, those that the chat template writes, and added tokens of the form
    <...>. Other added tokens (runs of blanks, words of a domain) are ordinary text.
    """
    template = str(getattr(tokenizer, "chat_template", None) or "")
    ids, texts = set(tokenizer.all_special_ids), set(tokenizer.all_special_tokens)
    # What stands for characters that the vocabulary lacks is text, unless it has another role too.
    unknown = tokenizer.unk_token_id
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if unknown is not None and unknown not in roles:
        ids.discard(unknown)
    for identifier, token in tokenizer.added_tokens_decoder.items():
        text = str(token)
        if not text.strip():
            continue
        if token.special or text in template or re.fullmatch(r"<\S+>", text):
            if identifier != unknown or unknown in roles:
                ids.add(identifier)
            texts.add(text)
    if not texts:
        return frozenset(ids), None
    longest_first = sorted(texts, key=len, reverse=True)
    return frozenset(ids), re.compile("|".join(map(re.escape, longest_first)))
