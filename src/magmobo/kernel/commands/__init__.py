"""The command bus: every order to the node passes here, one handler each. `bus` is the order of events; it meets the
gate, the audit log and the state store as Protocols only.
"""
