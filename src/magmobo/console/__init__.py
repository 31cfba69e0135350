"""The web console: one static page and the few routes it needs, behind the admin token.

Boundary: shows what `Operators` and `Realtime` tell; the one thing it changes is which version of the settings counts.
The page loads nothing from elsewhere.
"""
