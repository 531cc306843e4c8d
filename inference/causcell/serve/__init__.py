"""A Triton server on loopback, for development and tests."""
