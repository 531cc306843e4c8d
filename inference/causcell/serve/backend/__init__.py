"""Files that run in the environment of a Triton server, without causcell."""
