"""The shells that wait: the core decides, these sleep (`sync`) or await (`aio`) and do its will."""
