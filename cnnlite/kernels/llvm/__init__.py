"""Code written in LLVM IR: vector instructions, formulas, transcendental functions."""
