"""Perceiver and Perceiver IO in JAX."""

import numpy as np

# glibc returns freed memory to the kernel, which clears every page before it lends it again: twice
# the time of attention over chunks, since XLA's CPU kernels allocate the scratch of each. How much
# glibc keeps it learns from the largest block freed, of 32 MiB at most: here it sees one that is as
# large, never touched. From then on it keeps up to 64 MiB. Elsewhere this does nothing.
np.empty(2**25 - 2**13, np.uint8)
