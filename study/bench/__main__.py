"""Run the benchmark: `python -m study.bench`."""

from study.bench.compare import main
from study.system.process import run_command

if __name__ == "__main__":
    run_command(main)
