"""The stack of layers and the loops over it: training, evaluation, prediction; nothing specific to any one layer."""
