"""The process: which components, with which settings, on which data folder, until which signal.

`settings` reads what the user said, `secrets` what the node made up for itself, `components` loads classes by name, and
`process` is the story from claim to release. Boundary: the only place besides the command line that knows kernel, admin
and (by dotted name) every component. This file imports nothing, so that `settings` stays cheap to ask.
"""
