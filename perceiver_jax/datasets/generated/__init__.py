"""Datasets whose examples are drawn when they are asked for."""
