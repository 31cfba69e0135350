"""What everybody may name: components, events, errors, health and the Protocols of the planes.

Boundary: imports nothing of ours, does no I/O. The kernel, the components and the extension plane never import each
other; they meet here and are joined at run time by `magmobo.node`.
"""
