"""Attention that costs less and gives the numbers of the formula in `softmax`."""
