"""The restricted unpickler: what old files hold comes back, everything else is refused."""

import collections
import contextlib
import io
import os
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmodaler.utils import safe_pickle
from xmodaler.utils.errors import UserError

PLAIN = [
    None,
    2**80,
    {"a": [1, 2.5, (True, None)], b"b": {1, 2}},
    frozenset({1}),
    bytearray(b"ab"),
    b"\x00\xff",
    "ü",
    complex(1, 2),
    range(3),
    collections.OrderedDict(a=1),
    collections.Counter("aab"),
    collections.defaultdict(float, {(1, 2): 3.0}),
]
ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    np.zeros((0, 3)),
    np.array(5, dtype=np.uint32),
    np.arange(4, dtype=">i2"),
    np.array(["x", "yy"]),
    np.array([b"ab"]),
    np.array([True, False]),
    np.array([1, "a", None], dtype=object),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_objects_come_back(protocol):
    for value in PLAIN:
        loaded = safe_pickle.loads(pickle.dumps(value, protocol), encoding="ASCII")
        assert loaded == value and type(loaded) is type(value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_scalars_and_dtypes_come_back(protocol):
    for array in ARRAYS:
        loaded = safe_pickle.loads(pickle.dumps({"x": [array, (array,)]}, protocol))["x"]
        for copy in (loaded[0], loaded[1][0]):
            assert type(copy) is np.ndarray and copy.dtype == array.dtype
            np.testing.assert_array_equal(copy, array)
    for scalar in (np.float32(1.5), np.int64(3), np.bool_(True)):
        loaded = safe_pickle.loads(pickle.dumps(scalar, protocol))
        assert loaded == scalar and type(loaded) is type(scalar)
    assert safe_pickle.loads(pickle.dumps(np.dtype("f4"), protocol)) == np.dtype("f4")


def test_arrays_inside_object_arrays_come_back():
    outer = np.empty(2, dtype=object)
    outer[0], outer[1] = np.arange(3), [np.arange(3), {"a": np.ones(2)}]
    loaded = safe_pickle.loads(pickle.dumps(outer))
    np.testing.assert_array_equal(loaded[0], np.arange(3))
    np.testing.assert_array_equal(loaded[1][1]["a"], np.ones(2))


def test_a_pickle_of_python_2_is_read_as_bytes():
    # {'image_id': '42', 'ids': array([1, 2], dtype=uint32)} as Python 2 and numpy 1 wrote it.
    data = (
        b"(dp0\nS'image_id'\np1\nS'42'\np2\nsS'ids'\np3\ncnumpy.core.multiarray\n_reconstruct\np4\n"
        b"(cnumpy\nndarray\np5\n(I0\ntp6\nS'b'\np7\ntp8\nRp9\n(I1\n(I2\ntp10\ncnumpy\ndtype\np11\n"
        b"(S'u4'\np12\nI0\nI1\ntp13\nRp14\n(I3\nS'<'\np15\nNNNI-1\nI-1\nI0\ntp16\nbI00\n"
        b"S'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00'\np17\ntp18\nbs."
    )
    loaded = safe_pickle.loads(data)
    assert loaded[b"image_id"] == b"42"
    np.testing.assert_array_equal(loaded[b"ids"], np.array([1, 2], dtype=np.uint32))


def test_cycles_come_back():
    knot = {"a": []}
    knot["a"].append(knot)
    loaded = safe_pickle.loads(pickle.dumps(knot))
    assert loaded["a"][0] is loaded


class Call:
    def __init__(self, function, *arguments):
        self.reduction = (function, arguments)

    def __reduce__(self):
        return self.reduction


def evil(tmp_path):
    marker = str(tmp_path / "executed")
    command = f"touch {marker}"
    yield Call(os.system, command)
    yield Call(eval, f"__import__('os').system({command!r})")
    yield Call(exec, f"open({marker!r}, 'w')")
    yield Call(getattr, list, "append")
    yield Call(open, marker, "w")
    yield Call(__import__, "os")
    yield Call(np.load, marker)
    yield Call(np.fromfile, marker)
    yield collections.defaultdict(eval)
    yield np.dtype([("a", "f4"), ("b", "O")])
    yield np.zeros(2, dtype=[("a", "f4")])
    yield np.array([Call(os.system, command)], dtype=object)
    yield np.datetime64("2020-01-01")
    yield object()
    yield UserError("x")


def test_every_other_global_is_refused_and_nothing_runs(tmp_path):
    for protocol in (0, 2, 5):
        for value in evil(tmp_path):
            for wrapped in (value, [{"a": (value,)}]):
                with pytest.raises(UserError, match=r"refused|damaged"):
                    safe_pickle.loads(pickle.dumps(wrapped, protocol))
    assert not (tmp_path / "executed").exists()


def test_a_refusal_names_file_and_global(tmp_path):
    path = tmp_path / "anno.pkl"
    path.write_bytes(pickle.dumps([Call(os.system, "true")]))
    with pytest.raises(UserError, match=r"anno\.pkl' names 'posix\.system', which is refused"):
        safe_pickle.load(path)


def test_states_that_numpy_would_trust_are_refused():
    reconstruct = np.empty(0).__reduce__()[0]

    class Array:
        def __init__(self, state):
            self.state = state

        def __reduce__(self):
            return reconstruct, (np.ndarray, (0,), b"b"), self.state

    object_dtype = np.dtype(object)
    for state in (
        (1, (2,), object_dtype, False, b"\x01" * 16),
        (1, (1000,), np.dtype("f8"), False, b"\x01" * 16),
        (1, (-1,), "f8", False, b"\x01" * 16),
    ):
        try:
            loaded = safe_pickle.loads(pickle.dumps(Array(state)))
        except UserError:
            continue
        # Whatever is accepted holds the given bytes as plain ints, never as pointers.
        assert all(isinstance(item, int) for item in loaded)


def test_a_pickle_cannot_change_what_later_loads_use():
    # GLOBAL Counter; state that would set attributes of it; BUILD.
    poison = b"\x80\x02ccollections\nCounter\nN}X\x06\x00\x00\x00updatecbuiltins\nlist\ns\x86b."
    pickletools.dis(poison, out=io.StringIO())
    original = collections.Counter.update
    safe_pickle.loads(poison)
    assert collections.Counter.update is original
    assert safe_pickle.loads(pickle.dumps(collections.Counter("aa"))) == {"a": 2}


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_load_or_are_a_user_error(data):
    with contextlib.suppress(UserError):
        safe_pickle.loads(data)


@pytest.mark.parametrize(
    "content",
    [
        b"]r\xf0\xff\xff\xff.",  # the place of an object among those remembered
        b"\x80\x05\x96" + (1 << 36).to_bytes(8, "little") + b"abc.",  # the length of a bytearray
    ],
)
def test_damaged_sizes_take_no_memory(content):
    import tracemalloc

    tracemalloc.start()
    try:
        with contextlib.suppress(UserError):
            safe_pickle.loads(content)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_damaged_pickles_load_or_are_a_user_error(data):
    content = bytearray(pickle.dumps([PLAIN, ARRAYS], protocol=data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        safe_pickle.loads(bytes(content))


modules = st.sampled_from(["os", "posix", "subprocess", "builtins", "__builtin__", "numpy", "sys"])
names = st.sampled_from(
    ["system", "eval", "exec", "getattr", "setattr", "open", "Popen", "__import__", "load", "exit"]
)


@given(modules, names, st.text(max_size=10), st.integers(0, 5))
def test_no_named_function_is_ever_called(module, name, argument, protocol):
    call = f"c{module}\n{name}\n(V{argument.encode('unicode_escape').decode()}\ntR.".encode()
    with pytest.raises(UserError):
        safe_pickle.loads(call)


def test_dicts_of_arrays_by_id(tmp_path):
    arrays = {7: np.arange(3), "8": [1, 2], b"9": np.ones((2, 2), dtype=np.float32)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    loaded = safe_pickle.load_array_dict(tmp_path / "a.pkl")
    assert list(loaded) == ["7", "8", "9"]
    np.testing.assert_array_equal(loaded["8"], [1, 2])
    np.savez(tmp_path / "a.npz", **{"7": np.arange(3)})
    assert list(safe_pickle.load_array_dict(str(tmp_path / "a.npz"))) == ["7"]


def test_bad_dict_files_are_named(tmp_path):
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    (tmp_path / "key.pkl").write_bytes(pickle.dumps({1.5: 2}))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    np.savez(tmp_path / "object.npz", a=np.array([{}], dtype=object))
    for name, text in {
        "list.pkl": "holds a list",
        "key.pkl": "1.5",
        "cut.npz": "cannot be read",
        "object.npz": "cannot be read",
        "missing.pkl": "does not exist",
        "missing.npz": "does not exist",
    }.items():
        with pytest.raises(UserError, match=text) as caught:
            safe_pickle.load_array_dict(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        safe_pickle.load(tmp_path)
