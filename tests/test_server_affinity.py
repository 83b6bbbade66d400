"""Which replica: the same documents, the same one; a dead one's documents, and no others, move."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from icr_rag import Document
from icr_rag.server.affinity import document_set_key, preferred

TEXTS = st.lists(st.text(max_size=8), min_size=1, max_size=8)


@given(TEXTS, st.randoms())
def test_a_set_has_one_key_in_any_order_and_with_repetitions(texts, random):
    documents = [Document(text) for text in texts]
    shuffled = [Document(t, id=str(i), metadata={"i": i}) for i, t in enumerate(texts + texts[:2])]
    random.shuffle(shuffled)
    assert document_set_key(shuffled) == document_set_key(documents)


def test_a_title_is_part_of_a_document():
    assert document_set_key([Document("a", "b")]) != document_set_key([Document("a")])
    assert document_set_key([Document("a", "b")]) == document_set_key([Document("b\na")])


def test_lone_surrogates_have_a_key():
    assert document_set_key([Document("\ud800")])
    assert document_set_key([]) == ""


def test_sets_share_a_key_as_often_as_they_overlap():
    shared, trials = 0, 400
    for trial in range(trials):
        common = [Document(f"{trial} {place}") for place in range(6)]
        one = [*common, Document(f"{trial} one"), Document(f"{trial} two")]
        other = [*common, Document(f"{trial} three"), Document(f"{trial} four")]
        shared += document_set_key(one) == document_set_key(other)
    # Six of ten are in both; three standard deviations of 400 draws are .073.
    assert abs(shared / trials - 0.6) < 0.075


@given(st.text(), st.sets(st.text(min_size=1), min_size=2, max_size=6), st.data())
def test_without_one_replica_the_others_keep_their_order(key, names, data):
    order = preferred(key, names)
    assert sorted(order) == sorted(names)
    gone = data.draw(st.sampled_from(sorted(names)))
    assert preferred(key, names - {gone}) == [name for name in order if name != gone]


def test_keys_spread_over_the_replicas():
    first = Counter(preferred(document_set_key([Document(str(i))]), "abcd")[0] for i in range(2000))
    assert min(first.values()) > 400
