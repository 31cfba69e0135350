"""The gap-free change stream: the write-ahead log, decoded, as events with positions and a bounded history.

Boundary: reads one database through one replication slot; never alters a user's table and never writes a row of theirs.
Invariant: after any fault a subscriber gets every committed change once, in commit order, or an explicit gap.
"""
