"""The engine over Triton servers."""
