"""Whether a body is JSON that may be parsed: in UTF-8, not nested too deep, not of too many values.

Parsers go down one level of the stack, fill memory with a hundred bytes, or read digit after digit
of a number, for what takes one byte of a body; of texts they are quick. All loops here are over
what is left when strings are taken out, and that is bounded first.
"""

from __future__ import annotations

#: Objects and lists in each other. Clients need five.
DEEPEST = 32

_BRACKETS = b"[]{}"
#: Bytes outside of strings, for each list, object or string that there may be: names have none,
#: numbers and indentation do.
_OUTSIDE = 64
_OTHERS = bytes(byte for byte in range(256) if byte not in _BRACKETS)


def wrong_json(body: bytes, most_values: int) -> str | None:
    """Why a body is not parsed, in plain words; None if it may be, and may still be no JSON.

    Args:
        most_values: most lists and objects, and most strings.
    """
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the body is not UTF-8 at byte {error.start}"
    if b"\0" in body:
        return "the body has zero bytes, which JSON in UTF-8 has not"
    if body.count(b'"') > 4 * most_values:
        return f"the body has more than {2 * most_values} strings"
    # Without escapes a quotation mark begins or ends a string, each second piece being outside.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(plain.split(b'"')[::2])
    if len(outside) > _OUTSIDE * most_values:
        return f"the body has more than {_OUTSIDE * most_values} bytes outside of strings"
    brackets = outside.translate(None, _OTHERS)
    depth = 0
    for byte in brackets[: 2 * most_values]:
        depth += 1 if byte in b"[{" else -1
        if depth > DEEPEST:
            return f"the body is nested more than {DEEPEST} levels deep"
    if len(brackets) > 2 * most_values:
        return f"the body has more than {most_values} lists and objects"
    return None
