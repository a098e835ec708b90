"""How fast cnnlite is beside other libraries, in one run on one machine: `python -m benchmarks`. See README.md."""
