"""Models served by NVIDIA Triton: the client's engine, and a server for development."""
