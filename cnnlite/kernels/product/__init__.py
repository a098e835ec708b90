"""Products of matrices: the micro-kernel, and what brings it its numbers."""
