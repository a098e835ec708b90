"""Rewrites of a graph's steps that do less work for the same result."""

from cnnlite.engine.buffers import is_buffer
from cnnlite.engine.graph import stages_of
from cnnlite.kernels.operation import result

# The stages of max pooling, one for each algorithm.
_POOLING = "max_pool", "max_pool_wide"
_RECTIFIERS = "relu", "leaky_relu"  # monotonic: a larger input never gives a smaller output
_UNPOOLING = "max_pool_backward", "max_pool_backward_wide", "max_pool_backward_by_pixels"


def before_rectifier(x, size):
    """Return (z, rectifier) if x = rectifier(z) can be pooled as rectifier(max_pool(z)), else (x, None).

    The maximum of rectified numbers is the rectified maximum, to the last bit, and there are fewer maxima to rectify.
    `size` is how many numbers a sample has after the pooling. The rectifier is a step of x's graph. Ties are
    those of z: of two z that leaky_relu rounds to the same number the larger one wins, even if it is not the first.
    """
    maker = _maker(x) if is_buffer(x) else None
    if maker is None or maker.stage.name not in _RECTIFIERS or size >= x.sample_size:
        return x, None
    return maker.arguments["x"], maker


def relu_of_normalized(x, out):
    """Return relu(x), computed in the pass that makes x, if x is the y of a batch normalisation; otherwise None.

    This adds no work: if only relu reads x, the plan drops the step that would have written x.
    """
    maker = _maker(x) if is_buffer(x) else None
    if maker is None or maker.stage.name != "normalize" or maker.arguments["rectifies"]:
        return None
    if not _has_same_inputs_still(maker):
        return None
    y = result(out, x, x.shape)
    x.graph.add(maker.stage, together=maker.together, work=maker.work, **{**maker.arguments, "y": y, "rectifies": True})
    return y


def _has_same_inputs_still(step):
    """Return whether nothing has written to a step's inputs since it was added."""
    return all(writer.number < step.number for buffer in step.inputs
               for writer in buffer.graph.buffers[buffer.number].made_by)


def before_unpooling(dy, y, out, gradient):
    """Return gradient(dy, y, out), which is dy f'(y) elementwise, computed for as few numbers as possible.

    If p = max_pool(y), and dy is the gradient of p spread over this pooling's windows, the gradient is multiplied by
    f'(p) before it is spread: the pixel that won its window has y = p, and the others get 0. That requires that no two
    windows overlap. With 2x2 windows, f' is computed for a quarter of the numbers.

    A pixel that did not win gets 0 even where its own f'(y) is NaN.
    """
    back = _unpooling(dy, y)
    if back is None:
        return gradient(dy, y, out)
    dx = result(out, dy, dy.shape)
    arguments = back.arguments
    pooling = _maker(arguments["argmax"]).arguments
    p = pooling["y"] if pooling["x"].number == y.number else _rectified(pooling["y"])
    dp = gradient(arguments["dy"], p, None)
    with stages_of(back.layer):
        dy.graph.add(back.stage, together=back.together, scratch=back.scratch, work=back.work, grain=back.grain,
                     **{**arguments, "dy": dp, "dx": dx})
    return dx


def spreading_of(dy, x):
    """Return the step that spreads dy, the gradient of x, over windows that don't overlap, or None.

    x may be the pooled images in another shape, as long as it has the same channels. Windows of more than 256 pixels,
    whose argmax is wider, are not supported.
    """
    step = _maker(dy) if is_buffer(dy) else None
    if step is None or step.stage.name not in _UNPOOLING or not _has_same_inputs_still(step):
        return None
    images = step.arguments["dx"].shape
    is_of_x = images[0] == x.shape[0] and images[-1] == x.shape[-1]
    return step if is_of_x and step.arguments["argmax"].itemsize == 1 and _is_disjoint(step) else None


def tiles(step):
    """Return whether the windows of a step of `max_pool_backward` lie side by side, in the image, without gaps."""
    sizes = step.arguments
    return step.stage.name == "max_pool_backward" and sizes["kh"] == sizes["sh"] and sizes["kw"] == sizes["sw"]


def _is_disjoint(step):
    sizes = step.arguments
    return sizes["kh"] <= sizes["sh"] and sizes["kw"] <= sizes["sw"]


def _rectified(p):
    """Return the output of the rectifier that was moved after a pooling with output p: it has p's sign and is kept."""
    for step in p.graph.buffers[p.number].used_by:
        y = step.arguments.get("y")
        if step.stage.name in _RECTIFIERS and y.shape == p.shape and _maker(y) is step:
            return y
    return p


def _unpooling(dy, y):
    """Return the step that makes dy, the backward pass of a pooling of y whose windows don't overlap, or None."""
    if not (is_buffer(dy) and is_buffer(y)) or dy.shape != y.shape or dy.dtype != y.dtype:
        return None
    back = _maker(dy)
    if back is None or back.stage.name not in _UNPOOLING:
        return None
    there = back.arguments
    pooling = _maker(there["argmax"])
    pooled = {y.number, before_rectifier(y, 0)[0].number}  # buffers whose maxima have the same signs as y's
    if pooling is None or pooling.stage.name not in _POOLING or pooling.arguments["x"].number not in pooled:
        return None
    is_same = all(there[name] == size for name, size in pooling.arguments.items() if name in pooling.stage.sizes)
    return back if is_same and _is_disjoint(back) else None


def _maker(buffer):
    """Return the one step that writes a buffer, or None."""
    steps = buffer.graph.buffers[buffer.number].made_by
    return steps[0] if len(steps) == 1 else None
