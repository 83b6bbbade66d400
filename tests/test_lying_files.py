"""Files that lie about counts and sizes: our errors, and no more memory than the file is long."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from gguf_files import write_gguf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny import tiny_model

from icr_rag import RerankerConfig
from icr_rag.bounded import MOST_VALUES, parse_json, parse_yaml, read_text
from icr_rag.errors import ConfigError, DataError
from icr_rag.evaluation import files
from icr_rag.evaluation.files import read_lines
from icr_rag.evaluation.runs import read_run
from icr_rag.model.gguf_header import read_header
from icr_rag.model.weight_files import safetensors_fault
from icr_rag.profiles import HeadWeight, Profile, Shape

#: Bytes that reading a header of a few kilobytes may take up.
FEW = 4 * 2**20
MANY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
#: What is written over a file's bytes: any, or numbers of the widths that headers count in.
SCRIBBLES = (
    st.binary(min_size=1, max_size=12)
    | st.sampled_from([2**60, 2**63 - 1, 2**64 - 1, 2**40, 2**32, 2**31, 10**9]).map(
        lambda number: struct.pack("<Q", number)
    )
    | st.sampled_from([2**31 - 1, 2**32 - 1, 10**6, 0]).map(lambda n: struct.pack("<I", n))
)


@pytest.fixture(scope="module")
def whole_gguf(tmp_path_factory):
    file = write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", "llama", tiny_model("llama"))
    return file.read_bytes()


def scribbled(content, place, scribble):
    place %= len(content)
    return content[:place] + scribble + content[place + len(scribble) :]


def peak_of(call):
    """What ``call`` gives, and the most memory that Python took meanwhile."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def outcome(call, allowed):
    """What ``call`` gives, or the error of the kind that it may raise."""
    try:
        return call()
    except allowed as error:
        return error


# --- GGUF -----------------------------------------------------------------------------------


def test_what_a_header_says(whole_gguf, tmp_path):
    (tmp_path / "m.gguf").write_bytes(whole_gguf)
    header = read_header(tmp_path / "m.gguf")
    assert header.text("general.architecture") == "llama"
    assert header.text("tokenizer.ggml.pre") == "smollm"
    assert header.values["llama.block_count"] == 5
    assert (header.text("no.such.key"), header.widest) == ("", 264)


@MANY
@given(place=st.integers(0, 9000), scribble=SCRIBBLES, share=st.just(1.0) | st.floats(0, 1))
def test_a_gguf_header_that_lies_takes_no_memory(whole_gguf, tmp_path, place, scribble, share):
    content = scribbled(whole_gguf, place, scribble)
    path = tmp_path / "m.gguf"
    path.write_bytes(content[: int(len(content) * share)])

    assert peak_of(lambda: outcome(lambda: read_header(path), ValueError))[1] < FEW


COUNTS = ["tensors", "keys", "letters of a key", "letters of a value", "values of an array"]


@pytest.mark.parametrize("number", [2**60, 2**64 - 1, 10**12])
@pytest.mark.parametrize("count", COUNTS)
def test_every_count_is_held_against_the_file(tmp_path, count, number):
    counts = {name: number if name == count else None for name in COUNTS}

    def packed(name, honest):
        return struct.pack("<Q", honest if counts[name] is None else number)

    content = b"GGUF" + struct.pack("<I", 3) + packed("tensors", 0) + packed("keys", 2)
    content += packed("letters of a key", 1) + b"a" + struct.pack("<I", 8)
    content += packed("letters of a value", 2) + b"hi"
    content += struct.pack("<Q", 1) + b"b" + struct.pack("<II", 9, 8)
    content += packed("values of an array", 1) + struct.pack("<Q", 1) + b"x"
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=rf"announces .*{number}|{number} .*bytes are left"):
        read_header(tmp_path / "m.gguf")


def test_arrays_nested_deep_are_refused(tmp_path):
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a"
    content += struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ValueError, match="nested too deep"):
        read_header(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("key", "value"),
    [("block_count", 10**9), ("embedding_length", 2**31), ("attention.head_count", 2**30)],
)
def test_sizes_that_no_tensor_has_are_refused(tmp_path, whole_gguf, key, value):
    name = f"llama.{key}".encode()
    place = whole_gguf.index(name) + len(name) + 4
    (tmp_path / "m.gguf").write_bytes(scribbled(whole_gguf, place, struct.pack("<I", value)))
    with pytest.raises(ValueError, match=rf"llama\.{key} is {value}, but there are"):
        read_header(tmp_path / "m.gguf")


CONVERT = """
import resource, struct, sys
from pathlib import Path
from hypothesis import given, settings
from test_lying_files import SCRIBBLES, scribbled
import gguf, torch, transformers
from icr_rag.errors import ModelLoadError
from icr_rag.model.gguf import convert_gguf, gguf_config

whole = Path(sys.argv[1]).read_bytes()
folder = Path(sys.argv[2])
convert_gguf(Path(sys.argv[1]), folder / "whole")
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**30, held + 2**30))
outcomes = {True: 0, False: 0}

@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(place=__import__("hypothesis").strategies.integers(0, 9000), scribble=SCRIBBLES)
def check(place, scribble):
    path = folder / "m.gguf"
    path.write_bytes(scribbled(whole, place, scribble))
    for read in (lambda: convert_gguf(path, folder / "target"), lambda: gguf_config(path)):
        try:
            read()
            outcomes[True] += 1
        except ModelLoadError as error:
            assert "m.gguf" in str(error), error
            assert "MemoryError" not in str(error) and "allocate" not in str(error), error
            outcomes[False] += 1

check()
assert outcomes[True] and outcomes[False], outcomes
"""


def test_a_gguf_file_that_lies_is_refused_or_converted_in_little_memory(whole_gguf, tmp_path):
    (tmp_path / "whole.gguf").write_bytes(whole_gguf)
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(tmp_path / "whole.gguf"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


# --- safetensors ----------------------------------------------------------------------------


@MANY
@given(place=st.integers(0, 9000), scribble=SCRIBBLES, share=st.just(1.0) | st.floats(0, 1))
@example(place=0, scribble=struct.pack("<Q", 2**60), share=1.0)
@example(place=0, scribble=struct.pack("<Q", 99_000_000), share=1.0)
def test_a_safetensors_header_that_lies_takes_no_memory(
    model_folder, tmp_path, place, scribble, share
):
    whole = (Path(model_folder) / "model.safetensors").read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    content = scribbled(whole, place % length, scribble)
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    found, peak = peak_of(lambda: safetensors_fault(path))
    assert peak < FEW
    assert found is None or (str(path) in found and "\n" not in found)
    if share < 0.999:
        assert found is not None


# --- JSON, YAML, profiles, configurations ---------------------------------------------------

#: Texts that are short and ask for much.
BOMBS = {
    "brackets": "[" * 200_000,
    "braces": '{"a":' * 100_000,
    "digits": "1" * 10_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_json_that_asks_for_much(bomb):
    with pytest.raises(ValueError, match=r"nested too deep|digits"):
        parse_json(BOMBS[bomb])


def laughs(depth):
    """Every line stands for nine times the one before."""
    lines = ["a0: &a0 ha"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)]
    return "\n".join(lines)


def merges(depth):
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs(12), merges(12), "a: &a [*a]", "&a {b: *a}", "[" * 50_000, "- " * 50_000,
        "a: " + "1" * 10_000, "a: 2024-99-99", "a: !!float x", "a: !!int ''", "a: !!timestamp x",
        "? [a]\n: b", "? {a: b}\n: c", "a: !!python/object/apply:os.system [ls]", "a: !!binary é",
        "a: !!set x", "a: \x00", "a: *b", "%YAML 9.9\n---\na: 1",
    ],
)  # fmt: skip
def test_yaml_that_asks_for_much_or_is_none(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")

    def read():
        with pytest.raises(ConfigError, match=r"a\.yaml") as caught:
            RerankerConfig.from_file(path)
        return caught.value

    error, peak = peak_of(read)
    assert peak < 64 * 2**20
    assert len(str(error)) < 1000
    with pytest.raises(ConfigError, match="ICR_RAG_TOP_N"):
        RerankerConfig.from_env(environment={"ICR_RAG_TOP_N": text})


def test_aliases_that_save_words_are_read():
    assert parse_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: [*x, *x]") == {
        "a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": [{"b": 1}, {"b": 1}],
    }  # fmt: skip
    assert parse_yaml("") is None
    most = "[" + "1," * (MOST_VALUES - 1) + "]"
    assert len(parse_yaml(most)) == MOST_VALUES - 1


@MANY
@given(text=st.text(max_size=60) | st.text("[]{}&*a:,-!?<| \n0123'\"%.e", max_size=60))
def test_any_text_is_yaml_or_a_value_error(text):
    outcome(lambda: parse_yaml(text), ValueError)


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "a = " + "1" * 10_000, "a." * 5000 + "b = 1"]
)
def test_toml_that_asks_for_much(text, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.toml|setting"):
        RerankerConfig.from_file(tmp_path / "a.toml")


def test_files_without_end_are_not_read_to_it(tmp_path):
    with pytest.raises(ValueError, match="larger than 1,000 bytes"):
        read_text(Path("/dev/zero"), 1000)
    for name in ("a.yaml", "a.toml"):
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(ConfigError, match=r"cannot read configuration .*larger than"):
            RerankerConfig.from_file(tmp_path / name)
    with pytest.raises(ConfigError, match="larger than"):
        Profile.load("/dev/zero")


@pytest.mark.parametrize("path", ["~nobody-of-this-name/p.json", "a\0b.json", "x" * 5000])
def test_paths_that_cannot_be_ones(path):
    with pytest.raises(ConfigError, match="profile="):
        Profile.load(path)


def profile_text():
    config = tiny_model("llama").config
    profile = Profile(
        model="somebody/tiny", shape=Shape.of(config), heads=(HeadWeight(layer=1, head=2),)
    )
    return json.dumps(profile.model_dump(mode="json"))


ODD = st.sampled_from(
    [None, True, -1, 10**40, float("nan"), float("inf"), 1e308, "x", [], {}, [[]], "1" * 50]
)


@MANY
@given(data=st.data(), value=ODD)
def test_a_profile_with_any_value_changed_is_one_or_an_error_of_ours(tmp_path, data, value):
    values = json.loads(profile_text())
    target = data.draw(st.sampled_from([values, values["shape"], values["heads"][0]]))
    target[data.draw(st.sampled_from(sorted(target)))] = value
    (tmp_path / "p.json").write_text(json.dumps(values))
    found = outcome(lambda: Profile.load(tmp_path / "p.json"), ConfigError)
    if isinstance(found, Profile):
        assert all(abs(item.weight) < float("inf") for item in found.heads)
    else:
        assert "p.json" in str(found)


@MANY
@given(place=st.integers(0, 900), scribble=SCRIBBLES)
def test_a_scribbled_profile_is_one_or_an_error_of_ours(tmp_path, place, scribble):
    (tmp_path / "p.json").write_bytes(scribbled(profile_text().encode(), place, scribble))
    found = outcome(lambda: Profile.load(tmp_path / "p.json"), ConfigError)
    assert isinstance(found, Profile) or "p.json" in str(found)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_profile_that_asks_for_much(bomb, tmp_path):
    (tmp_path / "p.json").write_text(BOMBS[bomb])
    with pytest.raises(ConfigError, match=r"p\.json.* is not JSON"):
        Profile.load(tmp_path / "p.json")


# --- lines ----------------------------------------------------------------------------------


def test_a_line_without_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LONGEST", 10)
    path = tmp_path / "run.txt"
    path.write_text("short\n1234567890")
    assert [line for _, line in read_lines(path)] == ["short", "1234567890"]
    path.write_text("short\n12345678901\n")
    with pytest.raises(DataError, match=r"run\.txt:2: the line is longer than 10 bytes"):
        list(read_lines(path))
    with pytest.raises(DataError, match="longer than"):
        read_run("/dev/zero")


def test_a_run_whose_rank_has_many_digits(tmp_path):
    (tmp_path / "run.txt").write_text(f"q Q0 d {'1' * 10_000} 1.0 tag\n")
    with pytest.raises(DataError, match=r"run\.txt:1"):
        read_run(tmp_path / "run.txt")
