"""The training loop, run by Lightning: the plan, its batches and callbacks, and what a finished run writes."""
