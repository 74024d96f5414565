"""mistral_lib/presets/hdf5.py: tensors of an ordinary file, and every trick refused."""

import h5py
import jax
import ml_dtypes
import numpy as np
import pytest

from mistral_lib.presets import hdf5
from mistral_lib.presets.hdf5 import has_group, list_tensors, write_tensor

SECRET = 42.0


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.h5"


@pytest.fixture
def secret(tmp_path):
    """A file beside the weights, which nothing in them may read."""
    path = tmp_path / "secret"
    np.full((2, 3), SECRET, "float32").tofile(path)
    with h5py.File(tmp_path / "secret.h5", "w") as h5:
        h5["a"] = np.full((2, 3), SECRET, "float32")
    return path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", ">f4"])
def test_round_trip_bit_for_bit(file, dtype):
    values = [1e-9, 60000.0, np.nan, -0.0, np.inf, 3.14159]
    array = np.array(values).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    with h5py.File(file, "w") as h5:
        write_tensor(h5, "layers/a/vars/0", array.reshape(2, 3))
        write_tensor(h5, "b", array)
    tensors = list_tensors(file)
    assert set(tensors) == {"layers/a/vars/0", "b"}
    tensor = tensors["layers/a/vars/0"]
    expected = "float32" if dtype == ">f4" else dtype
    assert (tensor.shape, tensor.dtype, tensor.num_bytes) == ((2, 3), expected, array.nbytes)
    read = tensor.read()
    assert read.dtype == expected
    native = array.astype(expected) if dtype == ">f4" else array
    assert read.tobytes() == native.tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_jax_takes_the_memory_over(file, dtype):
    """Otherwise a tensor would be in memory twice while it is loaded."""
    with h5py.File(file, "w") as h5:
        write_tensor(h5, "a", np.ones((300, 7), dtype))
    array = list_tensors(file)["a"].read()
    taken = jax.device_put(array, jax.devices("cpu")[0])
    assert taken.unsafe_buffer_pointer() == array.ctypes.data


def test_keras_reads_bfloat16_from_here(file):
    """The form in which Keras itself stores it."""
    from keras.src.saving.saving_lib import H5IOStore

    array = np.array([1e-9, 70000.0, 1.0], ml_dtypes.bfloat16)
    with h5py.File(file, "w") as h5:
        write_tensor(h5, "vars/0", array)
    store = H5IOStore(file, mode="r").get("")
    assert store["0"].dtype == ml_dtypes.bfloat16
    assert store["0"].tobytes() == array.tobytes()


def test_compressed_tensors_are_read(file):
    array = np.arange(10_000, dtype="float32").reshape(100, 100)
    with h5py.File(file, "w") as h5:
        h5.create_dataset("a", data=array, chunks=(30, 30), compression="gzip")
    assert (list_tensors(file)["a"].read() == array).all()


def external_link(h5, secret):
    h5["a"] = h5py.ExternalLink(f"{secret}.h5", "a")


def soft_link(h5, secret):
    h5["b"] = np.zeros(2, "float32")
    h5["a"] = h5py.SoftLink("/b")


def external_data(h5, secret):
    h5.create_dataset("a", (2, 3), "float32", external=[(str(secret), 0, 24)])


def virtual_data(h5, secret):
    layout = h5py.VirtualLayout((2, 3), "float32")
    layout[:] = h5py.VirtualSource(f"{secret}.h5", "a", (2, 3))
    h5.create_virtual_dataset("a", layout)


def never_written(h5, secret):
    h5.create_dataset("a", (10**6, 10**6), "float32")


def chunks_never_written(h5, secret):
    h5.create_dataset("a", (100, 100), "float32", chunks=(10, 10))[:50] = 1


def integers(h5, secret):
    h5["a"] = np.zeros(3, "int16")


def raw_bytes(h5, secret):
    h5["a"] = np.zeros(3, "V2")


def text(h5, secret):
    h5["a"] = "text"


def compound(h5, secret):
    h5["a"] = np.zeros(3, [("x", "f4"), ("y", "f4")])


def no_shape(h5, secret):
    h5["a"] = h5py.Empty("float32")


def named_type(h5, secret):
    h5["a"] = np.dtype("float32")


def circle(h5, secret):
    group = h5.create_group("g")
    group["g"] = group


@pytest.mark.parametrize(
    ("trick", "message"),
    [
        (external_link, "'a' is a link of the kind ExternalLink, which is not followed"),
        (soft_link, "'a' is a link of the kind SoftLink, which is not followed"),
        (external_data, "the data of 'a' lies in another file"),
        (virtual_data, "the data of 'a' lies in another file"),
        (never_written, "'a' declares 1,000,000,000,000 numbers, but stores only 0 bytes"),
        (chunks_never_written, "'a' declares 10,000 numbers, but stores only 20,000 bytes"),
        (integers, "'a' has the dtype int16; weights must be bfloat16 or one of float16"),
        (raw_bytes, r"'a' has the dtype \|V2"),
        (text, "'a' has the dtype object"),
        (compound, "'a' has the dtype"),
        (no_shape, "'a' has no shape"),
        (named_type, "'a' is neither a group nor a tensor"),
        (circle, "the group 'g/g' is linked from two places"),
    ],
)
def test_refused(file, secret, trick, message):
    with h5py.File(file, "w") as h5:
        trick(h5, secret)
    with pytest.raises(ValueError, match=message) as caught:
        list_tensors(file)
    assert str(file) in str(caught.value)


def test_not_hdf5(file):
    file.write_bytes(b"PK\3\4 a pickle in a zip, say")
    with pytest.raises(ValueError, match=r"\(27 bytes\) is not an HDF5 file, or is cut off"):
        list_tensors(file)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_tensors(file.with_name("missing.h5"))


def small_file(file):
    with h5py.File(file, "w") as h5:
        for index in range(3):
            write_tensor(h5, f"layers/{index}/vars/0", np.full((4, 5), index + 1.0, "float32"))
    return file.read_bytes()


def test_cut_off_anywhere(file):
    whole = small_file(file)
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="cut off or damaged"):
            list_tensors(file)


def test_flipped_bytes_are_read_or_refused(file):
    """No damage may end in any other exception."""
    whole = bytearray(small_file(file))
    random = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), 3):
            damaged[position] = random.integers(0, 256)
        file.write_bytes(damaged)
        try:
            for tensor in list_tensors(file).values():
                if tensor.num_bytes < 10**6:
                    tensor.read()
        except ValueError as error:
            messages.append(str(error))
    assert messages
    assert all(str(file) in message for message in messages)


# --- Writing -------------------------------------------------------------------------------------


def test_written_through_our_own_file(file):
    array = np.arange(3000, dtype="float32").reshape(30, 100)
    with hdf5.writing(file) as h5:
        for name in ("a/vars/0", "a/vars/1", "b"):
            hdf5.write_tensor(h5, name, array)
        h5["a"].attrs["name"] = "query"
    assert array.nbytes * 3 < file.stat().st_size < array.nbytes * 4
    with h5py.File(file) as h5:
        assert h5["a"].attrs["name"] == "query"
    tensors = list_tensors(file)
    assert tensors.keys() == {"a/vars/0", "a/vars/1", "b"}
    assert all((tensor.read() == array).all() for tensor in tensors.values())


@pytest.mark.parametrize("limit", [0, 100, 3000, 30000, 200_000])
def test_a_disk_that_is_full(file, limit):
    """The first error of the disk is raised, and HDF5 hears of none."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_much(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write_much(file)
    assert len(list_tensors(file)) == 50


def write_much(file):
    with hdf5.writing(file) as h5:
        for number in range(50):
            hdf5.write_tensor(h5, f"{number}/vars/0", np.zeros(1000, "float32"))


def test_has_group(file):
    with h5py.File(file, "w") as h5:
        h5["lora/0/vars/a"] = np.zeros(3)
        h5["b"] = np.zeros(3)
    assert [has_group(file, name) for name in ("lora", "b", "c")] == [True, False, False]
