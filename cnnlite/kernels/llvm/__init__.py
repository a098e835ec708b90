"""Code that is written in LLVM's language: vector instructions, formulas, transcendental functions."""
