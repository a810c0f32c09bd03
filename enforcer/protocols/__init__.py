"""One folder a protocol, found by name."""
