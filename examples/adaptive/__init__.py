"""Maps that find out what a server allows; see `__main__`."""
