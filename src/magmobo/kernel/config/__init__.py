"""Configuration: layers of plain values in, frozen typed sections out, every problem named at once.

Boundary: reads TOML files and a given environment; knows no component. Invariant: a `Config` exists only when all of
it is valid, and no text made here shows the value of a secret.
"""
