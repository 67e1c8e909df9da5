"""The map: one scheduler, and the engines that make the attempts."""
