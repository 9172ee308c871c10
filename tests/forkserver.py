"""Commands as real processes, without their seconds of imports: a server that has imported the libraries forks them.

Each process has its own id, folder, environment, output, signals and exit code; only what libraries read from the
environment as they are imported is the server's. Its end runs what was registered for it and skips the taking apart of
the libraries. `fresh=True` starts a new interpreter instead, as does a variable of AT_IMPORT that differs, and any
system that is not Linux.

    with open_server() as server, connect(server) as start:
        start(["-m", "study.train", "--help"], cwd=folder).communicate()
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import util
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARIES = (
    "numpy", "pandas", "scipy.stats", "scipy.optimize", "sklearn.datasets", "sklearn.svm", "sklearn.neighbors",
    "sklearn.linear_model", "torch", "torch._dynamo", "torchvision.transforms.v2", "PIL.Image", "matplotlib.pyplot",
    "matplotlib.font_manager", "rich.progress", "rich.live", "wandb", "wandb.apis.public",
)  # fmt: skip
COMMANDS = ("study.train", "study.predict", "study.sweep", "study.sync", "analysis.summarize", "analysis.anatomy")
"""These are run, and `python -m` imports nothing of that name first."""

AT_IMPORT = ("MKL_", "OPENBLAS_", "PYTHON", "CUDA_", "MPL", "LC_", "LANG", "WANDB_ERROR_REPORTING")
"""What the names of variables begin with that are read as Python or a library begins; runs set torch's threads."""

TEMPORARY: list[tempfile.TemporaryDirectory] = []
"""The folders that libraries made as they were imported, as wandb does for pictures."""


class Process:
    """A process of the server, as subprocess.Popen has it: output in UTF-8, nothing to read."""

    stdin = None

    def __init__(self, args: Sequence[str], pid: int, status: int, stdout: int, stderr: int):
        self.args, self.pid, self._status = args, pid, status
        self.returncode: int | None = None
        self.stdout, self.stderr = (os.fdopen(end, encoding="utf-8") for end in (stdout, stderr))

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the process runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        if self._look(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read all output until both streams are closed, and wait for the end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        texts = {self.stdout: "", self.stderr: ""}

        def read(stream):
            texts[stream] = stream.read()

        readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in texts if not stream.closed]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if deadline is None else max(0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(None if deadline is None else max(0, deadline - time.monotonic()))
        for stream in texts:
            stream.close()
        return texts[self.stdout], texts[self.stderr]

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = struct.unpack("i", os.read(self._status, 4))[0]
            os.close(self._status)
        return self.returncode


@contextmanager
def open_server() -> Iterator[str]:
    """Start a server, which ends with the block or with this process, and yield the path of its socket."""
    if sys.platform != "linux":
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="s") as folder:
        path = str(Path(folder) / "python")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen()
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.forkserver", str(listener.fileno())], cwd=ROOT, env=environment(),
                pass_fds=[listener.fileno()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            yield path
        finally:
            server.stdin.close()
            server.wait(60)


def environment() -> dict[str, str]:
    """Return the environment in which a server imports the libraries."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return without | {"PYTHONPATH": str(ROOT), "WANDB_ERROR_REPORTING": "false"}


@contextmanager
def connect(path: str) -> Iterator:
    """Yield what starts `python WORDS…` in a folder by a server, with this process's environment or another."""
    if not path:
        yield popen
        return
    base = at_import(environment())

    def start(words, cwd, env=None, fresh=False, start_new_session=False):
        env = dict(os.environ if env is None else env) | {"PYTHONPATH": str(ROOT)}
        if fresh or at_import(env) != base:
            return popen(words, cwd, env, start_new_session=start_new_session)
        words = list(map(str, words))
        (out, out_end), (err, err_end), (status, status_end) = (os.pipe() for _ in range(3))
        request = {"words": words, "cwd": os.fspath(cwd), "env": env, "session": start_new_session}
        socket.send_fds(server, [json.dumps(request).encode("utf-8")], [out_end, err_end, status_end])
        for end in (out_end, err_end, status_end):
            os.close(end)
        pid = os.read(status, 4)
        assert pid, "the server of processes has ended"
        return Process([sys.executable, *words], struct.unpack("i", pid)[0], status, out, err)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(path)
        yield start


def popen(words, cwd, env=None, fresh=True, start_new_session=False) -> subprocess.Popen:
    """Start a new interpreter."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=cwd, env=dict(os.environ if env is None else env) | {
            "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding="utf-8", start_new_session=start_new_session,
    )  # fmt: skip


def at_import(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(AT_IMPORT)}


def serve(listener: socket.socket) -> dict | None:
    """Fork a process for each request; return its request in the process, and None at the end of the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; they close the standard input
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.set_wakeup_fd(waker)
    running: dict[int, int] = {}
    clients: list[socket.socket] = []
    while True:
        ready = select.select([sys.stdin, listener, woken, *clients], [], [])[0]
        if sys.stdin in ready:
            return None
        if listener in ready:
            clients.append(listener.accept()[0])
        if woken in ready:
            os.read(woken, 4096)
            while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                status = running.pop(ended[0])
                with suppress(BrokenPipeError):
                    os.write(status, struct.pack("i", os.waitstatus_to_exitcode(ended[1])))
                os.close(status)
        for client in [client for client in clients if client in ready]:
            content, ends, *_ = socket.recv_fds(client, 1 << 20, 3)
            if not content:
                clients.remove(client)
                client.close()
                continue
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                for one in (listener, *clients):
                    one.close()
                nothing = os.open(os.devnull, os.O_RDONLY)
                for end, place in ((nothing, 0), (ends[0], 1), (ends[1], 2)):
                    os.dup2(end, place)
                for end in (nothing, *ends, woken, waker, *running.values()):
                    os.close(end)
                return json.loads(content)
            os.set_inheritable(ends[2], False)
            os.close(ends[0])
            os.close(ends[1])
            with suppress(BrokenPipeError):
                os.write(ends[2], struct.pack("i", pid))
            running[pid] = ends[2]


def run(request: dict) -> None:
    """Be what `python WORDS…` would be, but end without taking every library apart, which takes half a second."""
    code = 0
    try:
        become(request)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stream.flush()
    os._exit(code)


def become(request: dict) -> None:
    """Make this process what `python WORDS…` would be, and run it."""
    if request["session"]:
        os.setsid()
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.modules["numpy"].random.seed()
    tempfile.tempdir = None
    for place in TEMPORARY:  # which the first process that ended would remove for all others
        place._finalizer.detach()
        place.__init__()
    for number, name in enumerate(("stdin", "stdout", "stderr")):  # those of the server know what their files were
        before = getattr(sys, name)
        stream = os.fdopen(
            number, "w" if number else "r", encoding=before.encoding, errors=before.errors, closefd=False
        )
        stream.reconfigure(line_buffering=name == "stderr")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    words = request["words"]
    if "study.sweep" in words:
        stand_by()
    if words[0] == "-W":
        warnings.simplefilter(words[1])
        sys.warnoptions.append(words[1])
        words = words[2:]
    kind, name, *sys.argv[1:] = words
    if kind == "-m":
        sys.path[0] = str(Path.cwd())
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-c", kind
        sys.argv[0], sys.path[0] = "-c", ""
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(name, "<string>", "exec"), main.__dict__)


def stand_by() -> None:
    """Fork a process that becomes multiprocessing's own server of workers when the command starts one.

    Otherwise that server would be a new interpreter, which takes five seconds to import what this process already has.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        its.close()
        start_interpreter = util.spawnv_passfds

        def start(path, args, passfds):
            if "multiprocessing.forkserver" not in args[-1] or ours.fileno() < 0:
                return start_interpreter(path, args, passfds)
            waiting = list(signal.pthread_sigmask(signal.SIG_BLOCK, []))  # as a new interpreter inherits it
            socket.send_fds(ours, [json.dumps([args[-1], list(passfds), waiting]).encode("utf-8")], passfds)
            ours.close()
            return pid

        util.spawnv_passfds = start
        return

    # Wait for the command to start its server, and end if the command does
    ours.close()
    content, received, *_ = socket.recv_fds(its, 1 << 20, 8)
    if not content:
        os._exit(0)
    its.close()
    code, numbers, waiting = json.loads(content)
    signal.pthread_sigmask(signal.SIG_BLOCK, waiting)

    # Give the files the numbers that they have in the command, and run what the new interpreter would
    kept = [fcntl.fcntl(end, fcntl.F_DUPFD, 1000) for end in received]
    for end in received:
        os.close(end)
    for end, number in zip(kept, numbers, strict=True):
        os.dup2(end, number, inheritable=False)
        os.close(end)
    try:
        exec(code, {})
    finally:
        os._exit(0)


def preload() -> None:
    """Import the libraries and the rooms of the project, but nothing that a command is named for."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for package in ("study", "analysis"):
        for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if found.name not in COMMANDS and not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    assert not set(COMMANDS) & set(sys.modules), set(COMMANDS) & set(sys.modules)
    assert threading.active_count() == 1, "what forks must have no threads"
    gc.collect()
    TEMPORARY.extend(one for one in gc.get_objects() if type(one) is tempfile.TemporaryDirectory)
    gc.freeze()


if __name__ == "__main__":
    preload()
    if asked := serve(socket.socket(fileno=int(sys.argv[1]))):
        run(asked)
