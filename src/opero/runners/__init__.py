"""What waits: the core decides, and these sleep (`sync.py`) or await (`aio.py`)."""
