"""Ray Serve: as one reranker, the same documents to the same replica, and no call lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

pytest.importorskip("ray.serve", reason="needs icr-rag[ray]")
pytest.importorskip("fastapi", reason="needs icr-rag[server]")

import httpx
from ray_parts import RAY_WARNS, by_value, free_port, served, small_app, small_ray

from icr_rag import RerankerConfig
from icr_rag.server.score_choice import load_served

pytestmark = RAY_WARNS
LISTS = [
    [f"Tin melts at {number} degrees.", f"Lead is number {number}.", f"{number} irons."]
    for number in range(12)
]


@pytest.fixture(scope="module")
def settings(model_folder):
    return {"model": model_folder, "device": "cpu", "dtype": "float32", "scoring": "likelihood"}


@pytest.fixture(scope="module")
def url(settings):
    from ray import serve

    from icr_rag.server.ray_app import application
    from icr_rag.server.ray_settings import ClusterSettings

    by_value()
    port = free_port()
    with small_ray():
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        two = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.5}
        one = {"num_cpus": 0.1}
        given = {"models": {"two": {"reranker": settings, **two},
                            "one": {"reranker": {"model": "lengths"}, **one}}}  # fmt: skip
        serve.run(application(ClusterSettings.of(given), small_app, served), name="icr_rag")
        # Not `serve.shutdown`, which stops gracefully what `ray.shutdown` ends.
        yield f"http://127.0.0.1:{port}"


def ask(url, query, documents, **more):
    body = {"query": query, "documents": documents, **more}
    return httpx.post(f"{url}/rank", json=body, timeout=300)


def process(answer):
    return int(answer["model"].partition("@")[2])


def replicas(url):
    """The processes of the model "two": both, since the lists spread."""
    return {process(ask(url, "tin?", documents).json()) for documents in LISTS}


def both(url):
    """Two processes; one that died has been replaced, by the answers rather than by Serve's word,
    which comes late."""
    while len(found := replicas(url)) < 2:
        time.sleep(0.2)
    return found


def test_answers_are_those_of_one_reranker(url, settings):
    with load_served(RerankerConfig(**settings)) as reranker:
        for documents in LISTS[:4]:
            answer = ask(url, "what melts?", documents).json()
            ranking = reranker.rank("what melts?", documents)
            assert answer["scores"] == pytest.approx(list(ranking.scores), abs=1e-5)
            assert answer["order"] == [hit.index for hit in ranking]


def test_the_same_documents_go_to_the_same_replica(url):
    assert len(both(url)) == 2
    for documents in LISTS[:6]:
        asked = [("a?", documents), ("b?", documents[::-1]), ("c?", documents + documents[:1])]
        assert len({process(ask(url, query, given).json()) for query, given in asked}) == 1


def test_a_call_names_its_model(url):
    alone = {process(ask(url, "tin?", d, model="one").json()) for d in LISTS[:4]}
    assert len(alone) == 1
    assert not alone & replicas(url)
    answer = ask(url, "tin?", LISTS[0], model="three").json()
    assert answer["kind"] == "InputError"
    assert answer["message"] == "model='three' is not served; served are 'two', 'one'"


def test_an_error_arrives_as_what_it_is(url):
    answer = ask(url, " ", LISTS[0])
    assert answer.json() == {
        "kind": "InputError",
        "message": "the query is blank; give the question to rank for",
    }


def test_a_deadline_goes_along(url):
    answer = ask(url, "what melts?", LISTS[0], deadline_ms=0.001).json()
    assert answer["degraded"] is not None
    assert answer["order"] == [0, 1, 2]


def test_a_call_whose_replica_dies_under_it_is_answered_by_another(url, tmp_path):
    before = both(url)
    retried = httpx.get(f"{url}/retried").json()
    answer = ask(url, f"die, {tmp_path / 'once'}", LISTS[0])
    assert answer.status_code == 200
    assert (tmp_path / "once").exists()
    assert httpx.get(f"{url}/retried").json() == retried + 1
    # What was the dead one's is the other's, or that of the one that came in its place.
    assert process(answer.json()) not in before or len(before - {process(answer.json())}) == 1


async def test_a_replica_killed_under_load_loses_no_call(url):
    victim = min(both(url))
    under_way, answers = asyncio.Semaphore(6), []

    async with httpx.AsyncClient(timeout=300) as client:

        async def call(number):
            async with under_way:
                body = {"query": f"number {number}?", "documents": LISTS[number % len(LISTS)]}
                answers.append((number, await client.post(f"{url}/rank", json=body)))
                if len(answers) == 40:
                    os.kill(victim, signal.SIGKILL)

        await asyncio.gather(*(call(number) for number in range(160)))

    assert sorted(number for number, _ in answers) == list(range(160))
    assert [answer.text for _, answer in answers if answer.status_code != 200] == []
    late = {process(answer.json()) for _, answer in answers[60:]}
    assert victim not in late
