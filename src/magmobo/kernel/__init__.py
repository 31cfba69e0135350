"""The motherboard: who runs when, on which configuration, and over which bus.

Boundary: knows components only through `magmobo.contracts`; never imports one. Its subsystems (`bus`, `config`,
`observe`) do not know each other and meet in `kernel.py`.
"""
