"""Programs for whoever changes opero; none of them is installed."""
