# pytest looks for doctests in every module: these are programs, which test_keras_scripts.py runs.
collect_ignore_glob = ["*.py"]
