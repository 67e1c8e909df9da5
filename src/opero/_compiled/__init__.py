"""The same modules as in `opero.core`, compiled; empty where opero is plain Python.

Beside this file stand the C types of each module (`.pxd`) and the three twins written for C
(`call.pyx`, `clock.pyx`, `shared_counters.pyx`); an installed wheel has the extension modules only.
"""
