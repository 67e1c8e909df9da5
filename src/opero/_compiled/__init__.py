"""The same modules as in `opero.core`, compiled; empty where opero is plain Python.

Beside this file stand the C types of each module (`.pxd`) and the two twins written for C
(`clock.pyx`, `call.pyx`); an installed wheel has the extension modules only.
"""
