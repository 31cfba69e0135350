"""`mag`: parse, ask the node or the services of `admin`, print, choose an exit code.

Boundary: no decision about the node is taken here. Invariant: `mag --help` imports click and nothing heavier; a
command's own module is imported when the command runs.
"""
