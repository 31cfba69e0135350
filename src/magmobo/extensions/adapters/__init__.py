"""The way of extensions to each plane: its hook points, the Protocol it is spoken to by, and what may be asked of it.

Boundary: adapters name components and speak to Protocols; none imports a component.
"""
