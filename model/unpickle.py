"""K-means centroids out of a pickle that nobody has to trust: every name in it becomes a stand-in of ours.

Published k-means (HuBERT's `*_km500.bin` and the like) are scikit-learn estimators dumped by joblib. Unpickling calls
what the file names, so here only names of numpy arrays, their dtypes and the two k-means classes are admitted, and none
of them is looked up: a stand-in keeps what the file says of it, and arrays are made afterwards, from plain bytes whose
number fits shape and dtype. scikit-learn and joblib are not needed.

joblib (0.10 on) pickles a small NumpyArrayWrapper in an array's place and writes the array's bytes right behind it into
the same stream; from 1.2 on a byte with the number of padding bytes goes before them.
"""

import bz2
import gzip
import io
import lzma
import math
import pickle
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from data.errors import InputError

_CODES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
_ESTIMATORS = {
    (module, name)
    for module in ("sklearn.cluster._kmeans", "sklearn.cluster.k_means_", "sklearn.cluster")
    for name in ("KMeans", "MiniBatchKMeans")
}
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_DECOMPRESS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x78\x01": zlib.decompress,
    b"\x78\x5e": zlib.decompress,
    b"\x78\x9c": zlib.decompress,
    b"\x78\xda": zlib.decompress,
}
# what reading a pickle or a compressed stream raises where the bytes are not what they claim to be
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    OSError,
    zlib.error,
    lzma.LZMAError,
)
NEXT_STEP = (
    "open it where it was made and save the centroids alone, numpy.save('centroids.npy', kmeans.cluster_centers_); "
    "this command reads that too"
)


class _Estimator:
    """A k-means object: its attributes."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DType:
    """What a pickled dtype says: a code such as f4, and the byte order of its state."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if self.code not in _CODES or self.order not in ("<", ">", "=", "|"):
            raise InputError(f"the pickle holds an array of dtype {self.code!r}, expected numbers: {NEXT_STEP}")
        return np.dtype(("=" if self.order == "|" else self.order) + self.code)


class _Array:
    """An array as the pickle describes it. Made by `_reconstruct`, whose arguments only ever name an empty one."""

    def __init__(self, *_: Any) -> None:
        self.parts: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, content = state[-4:]
        self.parts = (shape, dtype, "F" if fortran else "C", content)

    def numpy(self) -> np.ndarray:
        if not self.parts:
            raise InputError(f"the pickle holds an array without content: {NEXT_STEP}")
        shape, stand_in, order, content = self.parts
        dtype = stand_in.numpy()
        if not isinstance(content, bytes | bytearray) or len(content) != math.prod(shape) * dtype.itemsize:
            raise InputError(f"the pickle holds an array of shape {shape} whose bytes do not fit it: it is damaged")
        return np.frombuffer(bytes(content), dtype).reshape(shape, order=order)


class _NdarrayName:
    """The name of numpy.ndarray, which occurs as an argument and is never called."""


def _scalar(*_: Any) -> None:
    """A numpy scalar (inertia, tolerance): not needed."""


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise InputError(f"the pickle encodes bytes as {encoding!r}, expected latin1: {NEXT_STEP}")
    return text.encode("latin1")


def _from_buffer(content: Any, dtype: _DType, shape: Any, order: str, *_: Any) -> _Array:
    array = _Array()
    array.parts = (shape, dtype, order, content)
    return array


class _Unpickler(pickle.Unpickler):
    """Admits the names above; an array behind a joblib wrapper is read where the wrapper's state is set."""

    def __init__(self, handle: io.BytesIO) -> None:
        super().__init__(handle)
        self._wrapper = _wrapper_class(handle)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name. Raises InputError for one that is not admitted."""
        if (module, name) in _ESTIMATORS:
            return _Estimator
        stand_ins: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _NdarrayName,
            ("numpy", "dtype"): _DType,
            ("_codecs", "encode"): _encode,
            ("joblib.numpy_pickle", "NumpyArrayWrapper"): self._wrapper,
            **{(module, "_reconstruct"): _Array for module in _MULTIARRAY},
            **{(module, "scalar"): _scalar for module in _MULTIARRAY},
            **{(module, "_frombuffer"): _from_buffer for module in _NUMERIC},
        }
        if (module, name) not in stand_ins:
            raise InputError(
                f"the pickle names {module}.{name}, and only numpy arrays and scikit-learn's KMeans and "
                f"MiniBatchKMeans are admitted; nothing of it was run. If you trust the file, {NEXT_STEP}"
            )
        return stand_ins[module, name]


def _wrapper_class(handle: io.BytesIO) -> type:
    class Wrapper(_Array):
        """joblib's stand-in for an array, whose bytes follow in the stream."""

        def __setstate__(self, state: Any) -> None:
            dtype = state["dtype"]
            if state.get("numpy_array_alignment_bytes") is not None:
                handle.read(handle.read(1)[0])
            content = handle.read(math.prod(state["shape"]) * dtype.numpy().itemsize)
            self.parts = (tuple(state["shape"]), dtype, state["order"], content)

    return Wrapper


def read_centroids(content: bytes) -> np.ndarray:
    """float32 centroids (clusters, dimension) of a pickled or joblib-dumped k-means, or of a pickled array.

    Raises InputError for a pickle that names anything else, is damaged, or holds no centroids.
    """
    try:
        found = _Unpickler(io.BytesIO(_decompressed(content))).load()
        if isinstance(found, _Estimator):
            found = found.state["cluster_centers_"]
        centroids = found.numpy() if isinstance(found, _Array) else None
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"no k-means can be read from the pickle ({type(error).__name__}: {error}): {NEXT_STEP}"
        ) from None
    return checked_centroids(centroids)


def checked_centroids(centroids: np.ndarray | None) -> np.ndarray:
    """float32 (clusters, dimension). Raises InputError for anything that is no finite matrix."""
    numbers = centroids is not None and centroids.dtype.kind in "fiu"
    if (
        centroids is None
        or not numbers
        or centroids.ndim != 2
        or not centroids.size
        or not np.isfinite(centroids).all()
    ):
        found = "no array" if centroids is None else f"an array of {centroids.dtype} of shape {centroids.shape}"
        raise InputError(f"centroids are {found}, expected a finite matrix (clusters, dimension)")
    return np.array(centroids, dtype=np.float32, order="C")


def _decompressed(content: bytes) -> bytes:
    for magic, decompress in _DECOMPRESS.items():
        if content.startswith(magic):
            return decompress(content)
    return content
