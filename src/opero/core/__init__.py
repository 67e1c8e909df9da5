"""The hot path as plain, typed Python: one module per mechanism, decisions only, no waiting.

Every module here runs as it is, and is also what `opero._compiled.<the same name>` is compiled
from; only `call`, `clock` and `shared_counters` have a twin in C of their own. `opero.hotpath`
chooses between the two halves, so nothing else imports from either by name.
"""
