"""Convolutions, forward and backward: the geometry, im2col, the direct way, Winograd's, depthwise."""
