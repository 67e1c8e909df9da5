"""How functions, items and results travel to a worker and back.

names.py              functions by their names: where a worker finds one by importing it
fingerprints.py       whether two processes have the same code of a function
cloud.py              cloudpickle, as it can be imported
by_value.py           functions and classes by value, through cloudpickle
module_by_value.py    modules by value, as far as what is in them can travel
stand_ins.py          what pickle refuses, and what arrives in its place
library_classes.py    classes of libraries by value
handles.py            connections, sockets, and what multiprocessing shares
culprits.py           what keeps something from travelling
map_parts.py          what every worker gets once in a map
arrivals.py           where functions and classes arrive that travel by value
function_payload.py   the function of a map and its shared arguments
pickles.py            values in bytes
errors.py             exceptions in bytes
"""
