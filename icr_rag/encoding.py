"""From text to token ids, without letting a text's content act as a control token."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

_PLACEHOLDER = "ICRRAGUSERMESSAGE"
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


class Encoder:
    """Tokenises texts and the chat template's frame.

    Args:
        tokenizer: a transformers tokenizer. Its state is not changed. Not safe under threads.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._control_ids, self._control_pattern = _control_tokens(tokenizer)

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
        encoded = self.tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]
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
            own = self.tokenizer(character, add_special_tokens=False, verbose=False)["input_ids"]
            if not self._control_ids.isdisjoint(own):
                own = self.tokenizer("\ufffd", add_special_tokens=False, verbose=False)["input_ids"]
            ids += own
        return ids

    def chat_layout(self) -> tuple[list[int], list[int]]:
        """Token ids before and after the user's message.

        Taken from the tokenizer's own chat template; a plain layout where it has none.
        """
        if getattr(self.tokenizer, "chat_template", None):
            message = [{"role": "user", "content": _PLACEHOLDER}]
            text = self.tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True
            )
            before, found, after = text.partition(_PLACEHOLDER)
            if found and _PLACEHOLDER not in after:
                return self.encode_template(before), self.encode_template(after)
        return self.start_ids(), self.encode_template("\n\n")

    def start_ids(self) -> list[int]:
        """What the tokenizer itself puts before a plain text."""
        start = self.tokenizer.bos_token_id
        adds_start = start is not None and start in self.tokenizer("a", verbose=False)["input_ids"]
        return [start] if adds_start else []

    def encode_template(self, text: str) -> list[int]:
        """Token ids of a template's text, in which control tokens do act."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids if text else []


def _control_tokens(tokenizer: Any) -> tuple[frozenset[int], re.Pattern[str] | None]:
    """Ids of the tokens that structure a chat, and a pattern that finds their texts.

    Those marked special, those that the chat template writes, and added tokens of the form
    <...>. Other added tokens (runs of blanks, words of a domain) are ordinary text.
    """
    template = str(getattr(tokenizer, "chat_template", None) or "")
    ids, texts = set(tokenizer.all_special_ids), set(tokenizer.all_special_tokens)
    for identifier, token in tokenizer.added_tokens_decoder.items():
        text = str(token)
        if not text.strip():
            continue
        if token.special or text in template or re.fullmatch(r"<\S+>", text):
            ids.add(identifier)
            texts.add(text)
    if not texts:
        return frozenset(ids), None
    longest_first = sorted(texts, key=len, reverse=True)
    return frozenset(ids), re.compile("|".join(map(re.escape, longest_first)))
