"""Programs for developers of opero; none of them is installed."""
