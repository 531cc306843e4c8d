"""The diffusion process: noise schedule, solvers as tables, and the loop that runs them."""
