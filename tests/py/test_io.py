"""Model files in and out, against the packages that define the formats."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from edgequant import _core
from edgequant._core import Error, GgufFile, GgufWriter, SafetensorsFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

gguf = pytest.importorskip("gguf")
DTYPES = ("bool", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8")
LOWER = {"b1": "bool", "u1": "u8", "i1": "i8", "u2": "u16", "i2": "i16", "f2": "f16", "u4": "u32", "i4": "i32"}
LOWER |= {"f4": "f32", "u8": "u64", "i8": "i64", "f8": "f64"}


def write(path: Path, metadata: dict, tensors: dict[str, tuple[str, np.ndarray]], **options: int) -> None:
    infos = [(name, data.shape, kind) for name, (kind, data) in tensors.items()]
    with GgufWriter(path, metadata, infos, **options) as writer:
        for i, (_, data) in enumerate(tensors.values()):
            writer.write(i, data)
        writer.finish()


# --- safetensors ----------------------------------------------------------------------------------------------------

arrays = st.builds(
    lambda dtype, shape: np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), max_size=4),
)
names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(lambda s: s != "__metadata__")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(names, arrays, max_size=5),
    # Not empty: of nothing but an empty metadata the package makes a header that it does not read itself.
    st.none() | st.dictionaries(names, st.text(max_size=8), min_size=1, max_size=3),
)
def test_safetensors_reads_what_the_package_writes(tmp_path: Path, tensors: dict, metadata: dict | None) -> None:
    numpy_format = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "a.safetensors"
    path.write_bytes(numpy_format.save(tensors, metadata))
    file = SafetensorsFile(path)
    assert file.metadata == (metadata or {})
    assert {t.name for t in file.tensors} == set(tensors)
    for t in file.tensors:
        expected = tensors[t.name]
        assert t.shape == expected.shape
        assert t.type == LOWER[expected.dtype.str[1:]]
        assert t.data.tobytes() == expected.tobytes()


def test_safetensors_types_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    types = {"bfloat16": "bf16", "float8_e4m3fn": "f8_e4m3", "float8_e5m2": "f8_e5m2", "complex64": "c64"}
    types |= {"float8_e8m0fnu": "f8_e8m0", "float8_e4m3fnuz": "f8_e4m3fnuz", "float8_e5m2fnuz": "f8_e5m2fnuz"}
    tensors = {name: torch.ones(3, 5).to(getattr(torch, name)) for name in types if hasattr(torch, name)}
    save_file(tensors, tmp_path / "a.safetensors")
    file = SafetensorsFile(tmp_path / "a.safetensors")
    assert {t.name: t.type for t in file.tensors} == {name: types[name] for name in tensors}
    for t in file.tensors:
        assert t.data.tobytes() == tensors[t.name].contiguous().view(torch.uint8).numpy().tobytes()


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_safetensors_refuses_what_the_package_refuses(tmp_path: Path, data: st.DataObject) -> None:
    safe_open = pytest.importorskip("safetensors").safe_open
    numpy_format = pytest.importorskip("safetensors.numpy")
    tensors = {"a": np.ones((2, 3), "f4"), "b": np.ones(5, "i2")}
    raw = bytearray(numpy_format.save(tensors, {"format": "pt"}))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from("rid"))
        if kind == "r":
            raw[at] = data.draw(st.sampled_from(b'0123456789{}[]:," \\\x00\xff') | st.integers(0, 255))
        elif kind == "i":
            raw.insert(at, data.draw(st.sampled_from(b'0123456789{}[]:," \\')))
        else:
            del raw[at]
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw)
    try:
        with safe_open(path, "numpy") as reference:
            expected = {name: reference.get_slice(name).get_shape() for name in reference.keys()}
    except Exception:
        with pytest.raises(Error, match=r"a\.safetensors: "):
            SafetensorsFile(path)
        return
    try:
        file = SafetensorsFile(path)
    except Error:
        return  # stricter: names given twice, unknown fields
    assert {t.name: list(t.shape) for t in file.tensors} == expected


# --- GGUF -----------------------------------------------------------------------------------------------------------

METADATA = {
    "general.architecture": "llama",
    "flag": True,
    "no": False,
    "u8": np.uint8(200),
    "i8": np.int8(-100),
    "u16": np.uint16(60000),
    "i16": np.int16(-30000),
    "u32": np.uint32(4_000_000_000),
    "i32": np.int32(-5),
    "u64": np.uint64(2**64 - 1),
    "i64": np.int64(-(2**63)),
    "f32": np.float32(0.1),
    "f64": np.float64(0.1),
    "text": "größer \U0001f600",
    "empty": "",
    "strings": ["a", "", "ü"],
    "broken": "a\udcff",
    "none": [],
    "bools": np.array([True, False]),
    "nested": [["a"], [], np.array([1, 2], "i2"), [["deep"]]],
    **{f"array.{t}": np.arange(3).astype(t) for t in DTYPES if t not in ("f2",)},
}


def assert_same(a: object, b: object) -> None:
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, list):
        assert isinstance(b, list)
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_metadata_round_trip(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", METADATA, {})
    file = GgufFile(tmp_path / "a.gguf")
    assert list(file.metadata) == list(METADATA)
    for key, value in METADATA.items():
        assert_same(file.metadata[key], value)
    write(tmp_path / "b.gguf", file.metadata, {})
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_metadata_passes_through_unseen(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", METADATA, {})
    plain = GgufFile(tmp_path / "a.gguf").plain_metadata()
    assert len(plain) == len(METADATA) and plain.get("no such key", 7) == 7
    for key, value in METADATA.items():
        got = plain.get(key)
        assert type(got) in (str, bool, int, float, list)
        if not isinstance(value, list):
            np.testing.assert_array_equal(got, value)
    with GgufWriter(tmp_path / "b.gguf", plain, []) as writer:
        writer.finish()
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    keys = list(METADATA)
    changed = plain.updated({keys[1]: "other", "new": 1}, [keys[0], "no such key"])
    assert len(plain) == len(METADATA)
    with GgufWriter(tmp_path / "c.gguf", changed, []) as writer:
        writer.finish()
        assert writer.file_size == _core.gguf_size(changed, [])
    again = GgufFile(tmp_path / "c.gguf").metadata
    assert list(again) == [*keys[1:], "new"]
    assert again[keys[1]] == "other" and again["new"] == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, np.uint32(5)),
        (-5, np.int32(-5)),
        (2**32, np.uint64(2**32)),
        (2**64 - 1, np.uint64(2**64 - 1)),
        (-(2**31) - 1, np.int64(-(2**31) - 1)),
        (0.1, np.float32(0.1)),
        ([1, -2], np.array([1, -2], "i4")),
        ([1, 2**32 - 1], np.array([1, 2**32 - 1], "u4")),
        ([-1, 2**32], np.array([-1, 2**32], "i8")),
        ([1, 2**64 - 1], np.array([1, 2**64 - 1], "u8")),
        ([1, 0.5], np.array([1, 0.5], "f4")),
        ([True, False], np.array([True, False])),
        ([np.uint8(3), np.uint8(4)], np.array([3, 4], "u1")),
        (("a", "b"), ["a", "b"]),
        (np.arange(6, dtype="i4")[::2], np.array([0, 2, 4], "i4")),
        (np.arange(3, dtype=">u2"), np.arange(3, dtype="u2")),
        (np.array([], "f4"), np.array([], "f4")),
    ],
)
def test_metadata_of_plain_python(tmp_path: Path, value: object, expected: object) -> None:
    write(tmp_path / "a.gguf", {"k": value}, {})
    assert_same(GgufFile(tmp_path / "a.gguf").metadata["k"], expected)


@pytest.mark.parametrize(
    "value", [None, 2**64, -(2**63) - 1, [1, "a"], [-1, 2**64 - 1], np.ones((2, 2)), np.float16(1), {}, b"x", [None]]
)
def test_metadata_that_gguf_has_not(tmp_path: Path, value: object) -> None:
    with pytest.raises(Error, match='metadata "k"'):
        write(tmp_path / "a.gguf", {"k": value}, {})
    assert not list(tmp_path.iterdir())


def test_self_containing_list_is_refused(tmp_path: Path) -> None:
    value: list = []
    value.append(value)
    with pytest.raises(Error, match="nest deeper"):
        write(tmp_path / "a.gguf", {"k": value}, {})


def test_large_string_arrays_are_fast(tmp_path: Path) -> None:
    tokens = [f"token{i}ü" for i in range(150_000)]
    begin = time.perf_counter()
    write(tmp_path / "a.gguf", {"tokens": tokens, "types": np.ones(150_000, "i4")}, {})
    assert GgufFile(tmp_path / "a.gguf").metadata["tokens"] == tokens
    assert time.perf_counter() - begin < 2  # 0.1 s when idle; the gguf package needs several


def catalogue() -> list[tuple[str, int, int]]:
    """(name, weights per block, bytes per block) of all types that the gguf package knows.

    Without q8_1, a type of activations: the package says 40 bytes, ggml's struct has 36.
    """
    sizes = gguf.GGML_QUANT_SIZES
    return [(t.name.lower(), *sizes[t]) for t in gguf.GGMLQuantizationType if t in sizes and t.name != "Q8_1"]


def test_tensors_as_the_gguf_package_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {}
    for kind, block, size in catalogue():
        data = rng.integers(0, 256, (2, 3, 5 * size), dtype=np.uint8)
        tensors[f"t.{kind}"] = (kind, (2, 3, 5 * block), data)
    with GgufWriter(tmp_path / "a.gguf", METADATA, [(n, shape, k) for n, (k, shape, _) in tensors.items()]) as writer:
        for i in reversed(range(len(tensors))):
            writer.write(i, list(tensors.values())[i][2])
        writer.finish()
    own = {t.name: t for t in GgufFile(tmp_path / "a.gguf").tensors}
    theirs = gguf.GGUFReader(tmp_path / "a.gguf").tensors
    assert [t.name for t in theirs] == list(own) == list(tensors)
    for t in theirs:
        kind, shape, data = tensors[t.name]
        mine = own[t.name]
        assert t.tensor_type.name.lower() == kind == mine.type
        assert tuple(reversed(t.shape.tolist())) == shape == mine.shape
        assert t.data_offset == mine.offset
        assert t.n_bytes == mine.nbytes
        assert t.data.tobytes() == mine.data.tobytes() == data.tobytes()


@pytest.mark.parametrize("alignment", [32, 64])
def test_bytes_equal_the_gguf_package(tmp_path: Path, alignment: int) -> None:
    rng = np.random.default_rng(1)
    tensors = {
        "token_embd.weight": ("f32", rng.standard_normal((7, 5), "f4")),
        "blk.0.ffn.weight": ("f16", rng.standard_normal((3, 9)).astype("f2")),
        "ids": ("i32", np.arange(3, dtype="i4")),
        "end": ("i8", np.arange(1, dtype="i1")),
    }
    theirs = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    if alignment != 32:
        theirs.add_custom_alignment(alignment)
    theirs.add_uint32("llama.block_count", 2)
    theirs.add_float32("llama.eps", 1e-5)
    theirs.add_array("tokenizer.ggml.tokens", ["a", "ü", ""])
    theirs.add_array("tokenizer.ggml.token_type", [1, 2, 3])
    theirs.add_bool("flag", True)
    for name, (_, data) in tensors.items():
        theirs.add_tensor(name, data)
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()
    metadata = {"general.architecture": "llama"}
    if alignment != 32:
        metadata["general.alignment"] = np.uint32(alignment)
    metadata |= {"llama.block_count": 2, "llama.eps": 1e-5, "tokenizer.ggml.tokens": ["a", "ü", ""]}
    metadata |= {"tokenizer.ggml.token_type": [1, 2, 3], "flag": True}
    write(tmp_path / "own.gguf", metadata, tensors)
    assert (tmp_path / "own.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


# --- views and writers ----------------------------------------------------------------------------------------------


def test_data_is_a_read_only_view_that_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write(path, {}, {"a": ("f32", np.arange(100_000, dtype="f4"))})
    file = GgufFile(path)
    tensor = file.tensors[0]
    data = tensor.data
    del file, tensor
    path.unlink()
    gc.collect()
    assert data.view("f4")[99_999] == 99_999
    assert not data.flags.writeable
    with pytest.raises(ValueError):
        data[0] = 1
    with pytest.raises(ValueError):
        data.flags.writeable = True


def test_writer_discards_unless_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with pytest.raises(RuntimeError), GgufWriter(path, {}, [("a", (4,), "i8")]) as writer:
        writer.write(0, b"1234")
        raise RuntimeError
    with pytest.raises(Error, match="closed"):
        writer.write(0, b"1234")
    with GgufWriter(path, {}, [("a", (4,), "i8")]) as writer:
        with pytest.raises(ValueError, match="not C-contiguous"):
            writer.write(0, np.zeros((2, 4), "i1")[:, :2])
        with pytest.raises(Error, match='"a" was not written'):
            writer.finish()
    assert not list(tmp_path.iterdir())


def test_threads_write_at_once(tmp_path: Path) -> None:
    data = [np.full((64, 1024), i, "u1").view("i1") for i in range(32)]
    with GgufWriter(tmp_path / "a.gguf", {}, [(f"t{i}", d.shape, "i8") for i, d in enumerate(data)]) as writer:
        threads = [threading.Thread(target=writer.write, args=(i, d)) for i, d in enumerate(data)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.finish()
    for i, t in enumerate(GgufFile(tmp_path / "a.gguf").tensors):
        assert (t.data == i).all()


def test_source_may_be_its_own_target(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write(path, {"k": 1}, {"a": ("f32", np.arange(10_000, dtype="f4"))})
    before = path.read_bytes()
    source = GgufFile(path)
    write(path, source.metadata, {t.name: (t.type, t.data.view("f4")) for t in source.tensors})
    assert path.read_bytes() == before
    assert source.tensors[0].data.view("f4")[-1] == 9_999


def python(code: str, **options: object) -> subprocess.Popen:
    """A process of its own that runs `code`; its `_core` is this process's."""
    package = str(Path(_core.__file__).parent.parent)
    env = os.environ | {"PYTHONPATH": package}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


ENDLESS = """
    import numpy as np
    from edgequant._core import GgufWriter
    with GgufWriter("a.gguf", {}, [(f"t{i}", (1 << 20,), "i8") for i in range(64)]) as writer:
        data = np.ones(1 << 20, "i1")
        writer.write(0, data)
        print("ready", flush=True)
        while True:
            pass
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signal_in_the_middle_leaves_nothing(tmp_path: Path, sent: signal.Signals) -> None:
    process = python(ENDLESS, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -sent
    assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
    assert not list(tmp_path.iterdir())


def test_limit_of_the_process_is_a_sentence(tmp_path: Path) -> None:
    code = """
        import resource
        from edgequant._core import Error, GgufWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            GgufWriter("a.gguf", {}, [("a", (1000,), "f32")])
        except Error as e:
            print(e)
    """
    out, errors = python(code, cwd=tmp_path).communicate(timeout=30)
    assert "a.gguf: cannot be written: its 4064 bytes exceed this process's limit of 1000 bytes" in out, errors
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody with fewer rights")
def test_folder_that_is_not_writable(tmp_path: Path) -> None:
    code = f"""
        import os
        from edgequant._core import Error, GgufWriter
        os.chdir({str(tmp_path)!r})
        os.setuid(65534)
        try:
            GgufWriter("a.gguf", {{}}, [])
        except Error as e:
            print(e)
    """
    tmp_path.chmod(0o755)
    out, errors = python(code).communicate(timeout=30)
    assert out.startswith("a.gguf: cannot be written: folder .: Permission denied"), errors


@pytest.mark.parametrize("open_file", [GgufFile, SafetensorsFile])
def test_paths_that_are_no_files(tmp_path: Path, open_file: type) -> None:
    with pytest.raises(Error, match=r"none: cannot be opened: No such file"):
        open_file(tmp_path / "none")
    with pytest.raises(Error, match="is a directory"):
        open_file(str(tmp_path))
    with pytest.raises(Error, match="/dev/null: is not a regular file"):
        open_file("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Error, match="pipe: is not a regular file"):
        open_file(tmp_path / "pipe")


def test_paths_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.gguf")
    write(Path(path), {}, {})
    assert GgufFile(path).path == path
    os.truncate(path, 10)
    with pytest.raises(Error, match=r'/\\xff\\x0a.gguf": cut off at byte 10'):
        GgufFile(path)
    os.unlink(path)
    with pytest.raises(Error, match=r'/\\xff\\x0a.gguf": cannot be opened'):
        GgufFile(path)
    with pytest.raises(Error, match=r'/a": cannot be written: folder ".*\\xff'):
        GgufWriter(path + "/a", {}, [])
