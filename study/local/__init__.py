"""Run sweeps on this machine: the plan, the engine, its workers, and the status of runs."""
