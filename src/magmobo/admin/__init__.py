"""The operators' door: the control socket of a running node, and what can be done while none runs.

Boundary: it knows the node only through the `Operators` Protocol; nothing here starts a kernel.
"""
