"""What a kernel requires of its arrays; the compiled code that reads them checks nothing.

Kernels compute addresses from the expected shapes alone. An array that is smaller, of another dtype, or not contiguous
would be read or written out of bounds. A check costs about 0.2 µs.
"""

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def require(array, name, shape, dtype, owner):
    """Raise an error unless `array` is C-contiguous, of that shape and of that dtype.

    Args:
        array: what was passed.
        name: the name of the argument, for the error.
        shape: a tuple; or the number of axes, if they may have any size.
        dtype: a NumPy dtype; or None for float32 or float64.
        owner: the name of the kernel, for the error.

    Raises:
        TypeError: the dtype is wrong.
        ValueError: the shape is wrong, or the array is not contiguous.
    """
    given = array.dtype
    if given not in FLOATS if dtype is None else given != dtype:
        wanted = "float32 or float64" if dtype is None else f"of dtype {dtype}"
        raise TypeError(
            f"{owner}: {name} must be {wanted}. Received: {name} of dtype {given}. "
            "All arrays of a kernel must have the same dtype; convert it with astype."
        )
    if (array.ndim if isinstance(shape, int) else array.shape) != shape:
        wanted = f"have {shape} axes" if isinstance(shape, int) else f"have the shape {shape}"
        raise ValueError(f"{owner}: {name} must {wanted}. Received: {name}.shape={array.shape}.")
    if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
        raise ValueError(
            f"{owner}: {name} must be C-contiguous. Received: {name} with the strides {array.strides}. "
            f"Use np.ascontiguousarray({name})."
        )
