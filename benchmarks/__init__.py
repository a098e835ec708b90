"""cnnlite's speed against other libraries, in one run on one machine: `python -m benchmarks`. See README.md."""
