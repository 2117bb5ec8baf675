"""The runtime as a process of its system: the two locks it holds, its hash seed, its heap."""
