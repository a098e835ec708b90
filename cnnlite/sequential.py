"""`Sequential` under the name by which older pickles know it; see `cnnlite/model/sequential.py`."""

from cnnlite.model.sequential import Sequential

__all__ = ["Sequential"]
