"""The event bus: typed events inside one node, in order, isolated, bounded.

Boundary: knows events and nothing else of the node; loggers, clocks and owners are given to it.
"""
