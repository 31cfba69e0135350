"""Copies the node's audit records to a Postgres table of the user's, in order and without loss.

Boundary: the file stays the truth; the table is for those who want to ask SQL. Nothing is created or altered there.
"""
