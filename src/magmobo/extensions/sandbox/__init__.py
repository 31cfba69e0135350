"""Where code of extensions runs: processes that can reach nothing but one inherited socket.

`spawner.py` is the node's side, `zygote.py` the process that workers are forked from; `layers.py` lists what is put
around a worker, in which order. Boundary: what a worker says on its socket is not looked at here.
"""
