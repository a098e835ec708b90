"""Random networks and what is done to them, each computed in four ways that must agree.

`nets.py` draws a network from all layers, and a life: calls of one image and of several, training steps, weights edited
in place, attributes changed, methods put on objects and classes (`twists.py`). `lives.py` leads that life,
`with_torch.py` says what PyTorch makes of each step, and `judges.py` whether the two agree.
`tests/stress/test_differential.py` compares

    as it runs          the library as it is
    layer by layer      within `fusion.disabled()`: the same bits
    in eager mode       within `cnnlite.reference_mode()`
    PyTorch             in float64
"""
