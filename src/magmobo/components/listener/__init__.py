"""The one public port: HTTP and WebSockets of every component behind one address.

Boundary: knows no plane. Components mount prefixes on it; it owns sockets, RFC 6455, limits and deadlines.
"""
