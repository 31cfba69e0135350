"""MagGate: REST over the schema, in PostgREST's grammar.

A request is parsed (`request`, `grammar`), resolved against the schema cache (`plan`), written as SQL (`sql`) and run
through the `Database` Protocol; the JSON text Postgres builds is the response. Boundary: no connection is opened here
and no row becomes a Python object. `component` is the door.
"""
