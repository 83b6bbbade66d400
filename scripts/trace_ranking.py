"""Which files a ranking goes through, warm, and in which order: a map for readers.

    python scripts/trace_ranking.py            # joint prompt, the published method
    python scripts/trace_ranking.py framework=pointwise document_states=independent

On a tiny model with random weights. Counted are files of this package in which a function was
called, once the model is loaded and has ranked before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from tiny import byte_tokenizer, tiny_model

import icr_rag
from icr_rag import Reranker

PACKAGE = Path(icr_rag.__file__).parent
DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well."]


def files_touched(**settings: str) -> list[str]:
    """Files of the package, relative to it, in the order in which a warm ranking comes to them."""
    settings = {"framework": "listwise", **settings}
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **settings)
    reranker.rank("Which metal melts first?", DOCUMENTS)
    found: dict[str, None] = {}

    def look(frame: FrameType, event: str, argument: object) -> None:
        # A generator expression or lambda runs where it was written.
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(f"{PACKAGE}/"):
            found.setdefault(name.removeprefix(f"{PACKAGE}/"))

    sys.setprofile(look)
    try:
        reranker.rank("Which metal melts first?", DOCUMENTS)
    finally:
        sys.setprofile(None)
    return list(found)


if __name__ == "__main__":
    touched = files_touched(**dict(argument.split("=", 1) for argument in sys.argv[1:]))
    print("\n".join(touched))
    floors = dict.fromkeys(name.partition("/")[0].removesuffix(".py") for name in touched)
    print(f"{len(touched)} files on {len(floors)} floors: {', '.join(floors)}")
