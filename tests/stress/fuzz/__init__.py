"""Attacks on everything that reads a file; `python -m tests.stress.fuzz --help` says how to run them for long."""
