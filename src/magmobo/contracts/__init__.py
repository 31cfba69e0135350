"""What everybody may name: components, events, errors, health and the Protocols of the planes.

Boundary: imports nothing of ours, and does no I/O, but for looking at folders (`folders`). The kernel, the components
and the extension plane never import each other; they meet here and are joined at run time by `magmobo.node`.
"""
