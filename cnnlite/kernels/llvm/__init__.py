"""Code that is written in LLVM IR: vector instructions, formulas, transcendental functions."""
