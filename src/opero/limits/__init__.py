"""Rate limits: for the threads and tasks of a process, for a machine, or for hosts with one Redis.

RateLimiter ─▶ WaitQueue         process: waiters in front of a token bucket
               MachineWaitQueue  machine: the same, in front of a bucket in shared memory
               RedisWaitQueue    redis: waiters who ask a server for their permits
"""

from .limiter import RateLimiter

__all__ = ["RateLimiter"]
