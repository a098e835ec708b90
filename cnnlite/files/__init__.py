"""Model files: what is in them, and how they are read and written, whole or not at all."""
