"""Which replica answers for which documents, so that kept document states are found where they are.

Document states are kept per document and per process. Lists that share documents should therefore
meet the same process again, and lists that share none should spread. Both follow from two hashes,
without a table that processes would have to agree on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from icr_rag.types import Document


def document_set_key(documents: Sequence[Document]) -> str:
    """One of the documents stands for all of them: the one with the smallest hash.

    The same set has the same key in any order, with any repetition and whatever its documents'
    ids and metadata, which are never read. Two sets have the same key with the probability that
    is their overlap (Jaccard similarity, as in MinHash), so that similar lists mostly meet too.

    Returns:
        Hexadecimal digits; "" for no documents.
    """
    return min((_digest(document.content) for document in documents), default="")


def preferred(key: str, names: Iterable[str]) -> list[str]:
    """Names of replicas, the first choice for ``key`` first (rendezvous hashing).

    Without one of the names the others keep their order: when a replica dies, only its own keys
    move, each to its second choice; when one comes, it takes its share from all.
    """
    return sorted(names, key=lambda name: _digest(f"{name}\n{key}"), reverse=True)


def _digest(text: str) -> str:
    # Lone surrogates are legal in JSON's strings, and no reason to fail.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
