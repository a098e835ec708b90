"""The bundled MNIST, and files of one's own: each kind, and each kind damaged."""

import gzip
import hashlib
import io
import pickle
import struct
import tracemalloc
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnlite.datasets import mnist

SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
MD5_OF_THE_ORIGINAL_FILES = {
    "x_train": "6bbc9ace898e44ae57da46a324031adb",
    "y_train": "a25bea736e30d166cdddb491f175f624",
    "x_test": "2646ac647ad5339dbf082846283269ea",
    "y_test": "27ae3e4e09519cfbb04c329615203637",
}
IDX_NAMES = dict(zip(mnist.KEYS, (name.format("-") for name in mnist.IDX_NAMES)))


@pytest.fixture(scope="module")
def bundled():
    (x_train, y_train), (x_test, y_test) = mnist.load_data()
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def small():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (5, 4, 3), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 1, 0], np.uint8),
        "x_test": rng.integers(0, 256, (2, 4, 3), dtype=np.uint8),
        "y_test": np.array([2, 0], np.uint8),
    }


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_npz(path, **changes):
    arrays = {key: array for key, array in {**small(), **changes}.items() if array is not None}
    np.savez_compressed(path, **arrays)
    return path


def write_idx(folder, packed=False, mark="-", **changes):
    for (_, array), name in zip({**small(), **changes}.items(), mnist.IDX_NAMES):
        data = idx_bytes(array)
        name = name.format(mark) + (".gz" if packed else "")
        (folder / name).write_bytes(gzip.compress(data) if packed else data)
    return folder


def assert_small(loaded):
    (x_train, y_train), (x_test, y_test) = loaded
    for array, expected in zip((x_train, y_train, x_test, y_test), small().values()):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.uint8
        assert array.flags.writeable
        assert array.flags.c_contiguous


# The bundled file.


def test_the_bundled_file_is_the_one_that_the_attribution_names():
    folder = resources.files("cnnlite.datasets")
    assert hashlib.sha256((folder / "mnist.npz").read_bytes()).hexdigest() == SHA256
    assert SHA256 in (folder / "MNIST-ATTRIBUTION.md").read_text()


def test_shapes_and_types_are_those_of_keras(bundled):
    shapes = {key: array.shape for key, array in bundled.items()}
    assert shapes == {"x_train": (60000, 28, 28), "y_train": (60000,), "x_test": (10000, 28, 28), "y_test": (10000,)}
    assert all(array.dtype == np.uint8 for array in bundled.values())


@pytest.mark.parametrize("key", MD5_OF_THE_ORIGINAL_FILES)
def test_the_bytes_are_those_of_the_original_files(bundled, key):
    assert hashlib.md5(idx_bytes(bundled[key])).hexdigest() == MD5_OF_THE_ORIGINAL_FILES[key]


def test_the_digits_are_as_often_as_known(bundled):
    assert np.bincount(bundled["y_train"]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(bundled["y_test"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_what_is_returned_belongs_to_the_caller(bundled):
    (x_train, _), _ = mnist.load_data()
    assert x_train.flags.writeable
    assert x_train.flags.owndata or x_train.base is not None
    assert not np.shares_memory(x_train, bundled["x_train"])
    x_train[:] = 0
    assert bundled["x_train"].any()


# Files of one's own.


def test_an_npz_is_loaded(tmp_path):
    assert_small(mnist.load_data(write_npz(tmp_path / "own.npz")))
    assert_small(mnist.load_data(str(tmp_path / "own.npz")))


def test_an_npz_that_is_not_compressed_and_in_fortran_order_is_loaded(tmp_path):
    np.savez(tmp_path / "own.npz", **{key: np.asfortranarray(array) for key, array in small().items()})
    assert_small(mnist.load_data(tmp_path / "own.npz"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
def test_a_folder_of_idx_files_is_loaded(tmp_path, packed, mark):
    assert_small(mnist.load_data(write_idx(tmp_path, packed, mark)))


@pytest.mark.parametrize("name", [*IDX_NAMES.values()])
def test_one_of_four_idx_files_stands_for_all(tmp_path, name):
    assert_small(mnist.load_data(write_idx(tmp_path) / name))


def test_the_idx_file_that_is_named_is_the_one_that_is_read(tmp_path):
    write_idx(tmp_path, packed=True)
    write_idx(tmp_path, x_train=np.zeros((5, 4, 3), np.uint8))
    assert_small(mnist.load_data(tmp_path / "train-images-idx3-ubyte.gz"))


def test_labels_may_be_of_any_integer_type(tmp_path):
    labels = np.array([0, 300, 2, 1, 0], np.int32)
    (_, y_train), _ = mnist.load_data(write_npz(tmp_path / "own.npz", y_train=labels))
    np.testing.assert_array_equal(y_train, labels)
    assert y_train.dtype == np.int32


# What isn't there, or isn't of that form.


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz doesn't exist\. Leave path out"):
        mnist.load_data(tmp_path / "nowhere.npz")


def test_a_missing_idx_file_is_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte or t10k-labels\.idx1-ubyte or .*gz"):
        mnist.load_data(tmp_path)


def test_a_file_of_another_name_among_idx_files_is_refused(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "digits.bin").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"digits\.bin must be an \.npz file or have the name of one"):
        mnist.load_data(tmp_path / "digits.bin")


def test_an_npz_without_one_of_the_arrays_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"own\.npz .* must hold the arrays .* Missing: y_test"):
        mnist.load_data(write_npz(tmp_path / "own.npz", y_test=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((5, 4, 3), np.float32)}, "x_train must hold images .* dtype=float32"),
        ({"x_train": np.zeros((5, 12), np.uint8)}, r"x_train must hold images .* shape=\(5, 12\)"),
        ({"x_test": np.zeros((0, 4, 3), np.uint8), "y_test": np.zeros(0, np.uint8)}, "x_test .* at least one"),
        ({"y_test": np.zeros((2, 1), np.uint8)}, r"y_test must hold integer labels .* shape=\(2, 1\)"),
        ({"y_train": np.zeros(5)}, "y_train must hold integer labels .* dtype=float64"),
        ({"y_train": np.zeros(5, bool)}, "y_train must hold integer labels .* dtype=bool"),
        ({"y_train": np.array(list("abcde"))}, "y_train must hold integer labels"),
        ({"y_train": np.zeros(4, np.uint8)}, "x_train and y_train must have the same length. Received: 5 and 4"),
        ({"y_test": np.array([0, -1])}, "y_test must not be negative. Received: -1"),
        ({"x_test": np.zeros((2, 3, 4), np.uint8)}, r"images of one size. Received: \(4, 3\) and \(3, 4\)"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        mnist.load_data(write_npz(tmp_path / "own.npz", **changes))


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_ever_unpickled(tmp_path):
    bombs = np.empty(5, object)
    bombs[:] = Bomb(tmp_path / "exploded")
    write_npz(tmp_path / "own.npz", y_train=bombs)
    with pytest.raises(ValueError, match=r"y_train\.npy holds Python objects, which are never loaded"):
        mnist.load_data(tmp_path / "own.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ValueError, match=r"pickle\.npz is damaged"):
        mnist.load_data(tmp_path / "pickle.npz")
    assert not (tmp_path / "exploded").exists()


# What is damaged.


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(["npz", "idx", "gzip"]))
def test_a_file_that_was_cut_off_is_named(tmp_path, share, kind):
    if kind == "npz":
        file = given_path = write_npz(tmp_path / "own.npz")
    else:
        given_path = write_idx(tmp_path, packed=kind == "gzip")
        file = tmp_path / ("train-images-idx3-ubyte" + (".gz" if kind == "gzip" else ""))
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=f"{file.name} is damaged"):
        mnist.load_data(given_path)
    file.unlink()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["npz", "gzip"]))
def test_a_flipped_bit_gives_the_same_data_or_an_error_that_names_the_file(tmp_path, data, kind):
    # A bit that nothing depends on, such as a date in an archive, may pass. Wrong data may not.
    if kind == "npz":
        file = given_path = write_npz(tmp_path / "own.npz")
    else:
        given_path = write_idx(tmp_path, packed=True)
        file = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        loaded = mnist.load_data(given_path)
    except ValueError as error:
        assert file.name in str(error)  # noqa: PT017
    else:
        assert_small(loaded)
    file.unlink()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\x01\x00\x08\x03", "must begin with the bytes 00 00 08 03. Received: 01 00 08 03"),
        (b"\x00\x00\x08\x01", "Received: 00 00 08 01"),
        (b"\x00\x00\x0d\x03", "Received: 00 00 0d 03"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 6, 4, 3), "ends after 60 of the 72 elements"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 4, 4, 3), "holds more than the 48 elements"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1), "more than a file of this size"),
    ],
)
def test_a_wrong_header_is_named(tmp_path, packed, header, message):
    write_idx(tmp_path, packed)
    file = tmp_path / ("train-images-idx3-ubyte" + (".gz" if packed else ""))
    data = header + idx_bytes(small()["x_train"])[len(header) :]
    file.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ValueError, match=rf"{file.name} is damaged .*{message}"):
        mnist.load_data(tmp_path)


def npy_with_header(header):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 28, 28)}", "data have another size"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -4, 3)}", "dimension"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (5, 4, 3", "EOF in multi-line"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (5, 4, 3)}", "Python objects"),
        ("'" * 50, "not a dictionary"),
    ],
)
def test_a_wrong_header_within_an_npz_is_named(tmp_path, header, message):
    write_npz(tmp_path / "own.npz")
    with zipfile.ZipFile(tmp_path / "own.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["x_train.npy"] = npy_with_header(header) + bytes(12)
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=rf"own\.npz is damaged .*{message}"):
        mnist.load_data(tmp_path / "own.npz")


def test_an_npz_whose_directory_claims_a_huge_array_is_refused_before_memory_is_asked_for(tmp_path):
    buffer = io.BytesIO()
    size = 2**31
    header = npy_with_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size}, 1, 1)}}")
    with zipfile.ZipFile(buffer, "w") as archive:
        for key in mnist.KEYS:
            archive.writestr(f"{key}.npy", header + bytes(12))
    real, claimed = struct.pack("<I", len(header) + 12), struct.pack("<I", len(header) + size)
    (tmp_path / "own.npz").write_bytes(buffer.getvalue().replace(real, claimed))
    with pytest.raises(ValueError, match=r"own\.npz .* its arrays claim \d+ bytes, more than a file of this size"):
        mnist.load_data(tmp_path / "own.npz")


def test_arrays_that_grow_a_thousandfold_are_refused_before_memory_is_asked_for(tmp_path):
    # 300 MB of zeros: 300 kB in a gzip file or an archive.
    size = 300 * 2**20
    shape = (size // 400, 20, 20)
    write_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(struct.pack(">BBBB3I", 0, 0, 8, 3, *shape))
        for _ in range(300):
            file.write(bytes(2**20))
    with zipfile.ZipFile(tmp_path / "own.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, array in small().items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                if key == "x_train":
                    member.write(npy_with_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"))
                    for _ in range(300):
                        member.write(bytes(2**20))
                else:
                    np.lib.format.write_array(member, array)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"ubyte\.gz is damaged .* more than a file of this size"):
            mnist.load_data(tmp_path)
        with pytest.raises(ValueError, match=r"own\.npz is damaged .* its arrays claim \d+ bytes, more than a file"):
            mnist.load_data(tmp_path / "own.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_header_within_an_npz_that_claims_to_be_huge_is_not_read_to_its_end(tmp_path):
    header = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**27) + b" " * 2**27
    with zipfile.ZipFile(tmp_path / "own.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in mnist.KEYS:
            archive.writestr(f"{key}.npy", header if key == "x_train" else b"")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"own\.npz is damaged"):
            mnist.load_data(tmp_path / "own.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused(tmp_path):
    write_npz(tmp_path / "own.npz")
    with zipfile.ZipFile(tmp_path / "own.npz", "a") as archive:
        archive.writestr("y_test.npy", archive.read("y_train.npy"))
    with pytest.raises(ValueError, match=r"own\.npz .* holds y_test more than once"):
        mnist.load_data(tmp_path / "own.npz")


def test_a_path_within_an_archive_leads_nowhere(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    write_npz(folder / "own.npz")
    with zipfile.ZipFile(folder / "own.npz", "a") as archive:
        for name in ("../x_train.npy", "/tmp/../x_train.npy", "C:\\x_train.npy", "../outside"):
            archive.writestr(name, b"outside")
    assert_small(mnist.load_data(folder / "own.npz"))
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["own.npz"]


def test_what_is_no_path_is_a_type_error():
    with pytest.raises(TypeError, match=r"load_data: path must be a string or a path. Received: path=3"):
        mnist.load_data(3)
