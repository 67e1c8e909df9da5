# C types for core/outcomes.py.

cpdef object judge(object call, object attempts, object error, long long deadline)
cpdef note_wait(object call, long long waited)
cpdef object too_late(object call, object attempts, str what)
cpdef bint misfits(object call, object error, object args, object kwargs) except -1
