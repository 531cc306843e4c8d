"""A solver as another package would bring it: Heun's method, of second order, as a table."""

import numpy as np

from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers import Solver, SolverSpec, Spacing, adjacent_alpha_bar, solver_table, timesteps


def heun(schedule: NoiseSchedule, steps: int, spacing: Spacing = "trailing") -> Solver:
    """Build Heun's method over DDIM's equation (Karras et al. 2022, algorithm 1, without noise).

    DDIM's step ``x' = a x + b x0`` is tried; with x0' of its end, ``a x + b (x0 + x0') / 2 = x' - b/2 x0 + b/2 x0'`` is
    taken. So a step is two rows, and two evaluations, the second one at the step's end. Where ``steps`` is even, the
    first step is DDIM's own; the last row returns x0, as always.
    """
    times = timesteps(schedule, min(steps, steps // 2 + 1), spacing)
    here, there = adjacent_alpha_bar(schedule, times)
    a = np.sqrt((1 - there) / (1 - here))
    b = np.sqrt(there) - a * np.sqrt(here)
    rows = []
    for i in range(len(times) - 1):
        rows.append((times[i], a[i], b[i], 0.0))
        if i or steps % 2:
            rows.append((times[i + 1], 1.0, b[i] / 2, -b[i] / 2))
    rows.append((times[-1], 0.0, 1.0, 0.0))
    t, a, b, c = np.array(rows).T
    return Solver(solver_table(t, a, b, c=c))


HEUN = SolverSpec(heun, takes_steps=True, takes_eta=False, estimate="sample")
"""What the entry point ``heun = solver_from_outside:HEUN`` of the group ``causcell.solvers`` names."""
