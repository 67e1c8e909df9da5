"""The way to servers and stores that may fail: what caches, limits and breakers share.

redis.py       connections to Redis, one client per URL
redis_url.py   which URLs lead there
outages.py     what is done while a store or a server does not answer
"""
