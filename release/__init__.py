"""What has to hold for files that are published, as commands: see `README.md` beside this file."""
