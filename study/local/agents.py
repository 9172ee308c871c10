"""Train a W&B sweep on this machine, with a warm worker for each GPU or share of the CPU cores.

    python -m study.sweep agents ENTITY/PROJECT/ID --gpus 0,1,2,3 [--per-gpu 2]

W&B's server distributes the runs, so the same command on other machines shares the work. When the command is
interrupted, its runs write a checkpoint and return to the sweep's queue, and no process stays behind.
"""

import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait

from study.local.seat import Seat
from study.local.seat_display import SeatsDisplay
from study.local.slots import Slot
from study.record.display import duration
from study.remote.sweep import WandbSweep, report_rest
from study.system.errors import Interrupted
from study.system.process import EndSignals

POLL_SECONDS = 0.25

START_SECONDS = 15.0
"""Longest wait for a run to be in W&B before it gets the signal to end; it may be waiting for another process."""


def run_agents(sweep: WandbSweep, slots: Sequence[Slot], folders: Mapping[str, str], grace_seconds: float) -> int:
    """Train the sweep's runs on the slots until W&B has no more; return 1 if a point has no result, else 0.

    Points that another machine still trains are no reason for 1.

    `folders` are the runs_dir, which also holds the slots' logs, and the data_dir.
    Raises Interrupted after SIGINT, SIGTERM or SIGHUP, once all processes have ended; they are killed after
    `grace_seconds` or at a second signal.
    """
    signals = EndSignals()
    seats: list[Seat] = []
    with SeatsDisplay(sweep.left) as display:
        try:
            # Train until all slots are over, or until a signal
            for slot in slots:
                seats.append(Seat(slot, sweep, folders, grace_seconds))
            agents = "1 agent" if len(seats) == 1 else f"{len(seats)} agents"
            display.say(f"{agents}, logs in {seats[0].log.parent}")
            while not signals.received and not all(seat.is_over for seat in seats):
                _step(seats, display)
            if signals.received:
                display.say(f"ending: runs write a checkpoint and are ended within {duration(grace_seconds)}")
                _interrupt(seats, display, signals, grace_seconds)
        finally:
            for seat in seats:
                seat.close()
            display.show(seats)

    # Report how they ended
    display.exits(seats)
    display.advise(seats, sweep)
    if signals.received:
        raise Interrupted(signals.received[0])
    is_incomplete = report_rest(sweep, display.say)
    has_failed = any(run.state == "failed" for seat in seats for run in seat.runs)
    return 1 if is_incomplete or has_failed or any(seat.has_failed or seat.unsent for seat in seats) else 0


def _step(seats: Sequence[Seat], display: SeatsDisplay) -> None:
    """Let each slot do what it can do now, and wait until there is more."""
    for seat in seats:
        seat.step(display.say)
    display.show(seats)
    wait([connection for seat in seats for connection in seat.connections], POLL_SECONDS)


def _interrupt(seats: Sequence[Seat], display: SeatsDisplay, signals: EndSignals, grace_seconds: float) -> None:
    """Send all runs SIGINT, which returns them to the queue, and wait for their end.

    A run that W&B does not have yet cannot return to the queue, so it gets the signal later.
    """
    asked = time.monotonic()
    latest = asked + min(START_SECONDS, grace_seconds / 2)
    unasked = list(seats)
    for seat in seats:
        seat.ask_to_end()
    while (
        time.monotonic() < asked + grace_seconds
        and len(signals.received) < 2
        and not all(seat.is_over for seat in seats)
    ):
        for seat in list(unasked):
            if seat.can_requeue or time.monotonic() > latest:
                seat.interrupt()
                unasked.remove(seat)
        _step(seats, display)
