"""Ray Data: as one process, every row once, also when a worker is killed."""

from __future__ import annotations

import json
import os

import pytest

pytest.importorskip("ray.data", reason="needs icr-rag[ray]")

from ray_parts import RAY_WARNS, small_ray

from icr_rag import RerankerConfig
from icr_rag.errors import ConfigError, DataError, ModelLoadError
from icr_rag.server import ray_job
from icr_rag.server.job import Job, do_here
from icr_rag.server.ray_job import RankParts, do_with_ray

pytestmark = RAY_WARNS


@pytest.fixture(scope="module")
def cluster():
    with small_ray():
        yield


@pytest.fixture
def config(model_folder):
    return RerankerConfig(model=model_folder, device="cpu", dtype="float32", scoring="likelihood")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    with path.open("w") as out:
        for number in range(24):
            documents = [f"Tin {place} melts at {number * place}." for place in range(3)]
            row = {"id": f"r{number}", "query": f"what {number}?", "documents": documents}
            out.write(json.dumps(row) + "\n")
    return path


def here(source, config):
    out = source.with_name("here.jsonl")
    job = Job.begin(source, out, config, 4)
    list(do_here(job))
    job.finish()
    return out.read_bytes()


def test_a_job_with_a_killed_worker_is_as_one_process(
    cluster, source, config, tmp_path, monkeypatch
):
    flag = tmp_path / "died"

    class DiesOnce(RankParts):
        def do(self, part):
            # Once a part was ranked, and before anybody was told.
            super().do(part)
            if part.number == 2 and not flag.exists():
                flag.touch()
                os._exit(1)

    monkeypatch.setattr(ray_job, "RankParts", DiesOnce)
    job = Job.begin(source, tmp_path / "out.jsonl", config, 4)
    assert sorted(part.number for part in do_with_ray(job, 2, cpus=0.5)) == list(range(6))
    assert flag.exists()
    assert job.finish().rows == 24
    assert (tmp_path / "out.jsonl").read_bytes() == here(source, config)


def test_a_part_that_always_kills_its_worker_is_named_and_the_others_are_done(
    cluster, source, config, tmp_path, monkeypatch
):
    class Dies(RankParts):
        def load(self):
            return None

        def do(self, part):
            if part.number == 1:
                os._exit(1)
            lines = (json.dumps({"row": part.first + i, "error": None}) for i in range(part.rows))
            self._job.part_file(part).write_text("\n".join(lines))

    monkeypatch.setattr(ray_job, "RankParts", Dies)
    job = Job.begin(source, tmp_path / "out.jsonl", config, 4)
    done = [part.number for part in do_with_ray(job, 1, cpus=0.5)]
    assert sorted(done) == [0, 2, 3, 4, 5]
    assert [part.number for part in job.unfinished()] == [1]
    with pytest.raises(DataError, match=r"4 of 24 rows have no result \(parts 1\)"):
        job.finish()


def test_workers_that_die_while_they_load_end_the_job(
    cluster, source, config, tmp_path, monkeypatch
):
    class DiesLoading(RankParts):
        def load(self):
            os._exit(1)

    monkeypatch.setattr(ray_job, "RankParts", DiesLoading)
    job = Job.begin(source, tmp_path / "out.jsonl", config, 4)
    with pytest.raises(ModelLoadError, match="no worker could be started"):
        list(do_with_ray(job, 1, cpus=0.5))


def test_a_finished_job_needs_no_cluster(source, config, tmp_path):
    job = Job.begin(source, tmp_path / "out.jsonl", config, 4)
    list(do_here(job))
    assert list(do_with_ray(job, 1, address="ray://nowhere:1")) == []


def test_wrong_numbers_are_refused(source, config, tmp_path):
    job = Job.begin(source, tmp_path / "out.jsonl", config, 4)
    with pytest.raises(ConfigError, match="workers=0"):
        list(do_with_ray(job, 0))
