"""Matrix products: the micro-kernel, and the code that feeds it."""
