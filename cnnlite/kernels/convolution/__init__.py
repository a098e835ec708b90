"""Convolutions, forward and backward: im2col, the direct method, Winograd's method, depthwise."""
