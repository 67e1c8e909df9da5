"""The hot path as plain, typed Python: one module per mechanism, decisions only, no waiting.

Every module here runs as it is, and `opero._compiled.<the same name>` is compiled from it; only
`call`, `clock` and `shared_counters` have a separate compiled twin. `opero.hotpath` chooses between
the two halves, so nothing else imports from either by name.
"""
