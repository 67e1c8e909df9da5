"""Rate limits: for the threads and tasks of a process, for a machine, or for hosts with one Redis.

RateLimiter ─▶ Line        process: waiters in front of a token bucket
               SharedLine  machine: the same, in front of a bucket in shared memory
               RemoteLine  redis: waiters who ask a server for their slots
"""

from .limiter import RateLimiter, Turn

__all__ = ["RateLimiter", "Turn"]
