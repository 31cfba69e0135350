"""Storage: Postgres (embedded or attached), pooled and pipelined connections, the stream of committed changes.

Door: `component.MagDS`. Nothing else of this package is for other towers; they use the Protocols `Database` and
`Changes`.
"""
