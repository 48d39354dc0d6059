"""The plan before renting: a config's training step compiled for a TPU slice that is not there.

`chips` (generations, slices, rooflines), `program` (the step and its memory), `hlo` (what a program
moves), `search` (what would fit), `report`; the command line is `__main__`.
"""
