"""The training loop: plan, callbacks, batches, and what a finished run writes."""
