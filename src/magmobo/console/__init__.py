"""The web console: one static page and the few routes it needs, behind the admin token.

Boundary: shows what `Operators` and `Realtime` tell, changes nothing. The page loads nothing from elsewhere.
"""
