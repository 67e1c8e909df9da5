"""How functions, items and results travel to a worker and back.

names.py              functions by their names: where a worker finds one by importing it
fingerprints.py       whether two processes have the same code of a function
by_value.py           decorated functions by value, through cloudpickle
function_payload.py   the function of a map and its shared arguments
pickles.py            values in bytes
errors.py             exceptions in bytes
"""
