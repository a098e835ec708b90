"""The stack of layers and the loops over it: training, evaluation, prediction. Nothing about any one layer."""
