"""Rate limits and circuit breakers: for a process, for a machine, or for hosts with one Redis.

RateLimiter ─▶ WaitQueue         process: waiters in front of a token bucket
               MachineWaitQueue  machine: the same, in front of a bucket in shared memory
               RedisWaitQueue    redis: waiters who ask a server for their permits
               SharedRate        what a process knows of a rate in Redis that adapts
Breaker ─────▶ BreakerQueue      process: waiters for the end of a probe, or of the time it is open
               BreakersByValue   one of those for each fallback value
"""

from .breaker import Breaker
from .limiter import RateLimiter

__all__ = ["Breaker", "RateLimiter"]
