"""Starting one process per device, by spawning them or by joining those that others started."""

import contextlib
import logging
import os
import re
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT = timedelta(minutes=30)
# Exit codes of a process that saved a checkpoint and left because of SIGTERM or SIGINT.
INTERRUPTED = (128 + signal.SIGTERM, 128 + signal.SIGINT)
# Exit code of a process that stopped because of a user's mistake.
USER_ERROR = 2
# How long a process may take to end after another one has failed.
GRACE_SECONDS = 10
# More would not fit into the pipe to the parent, which reads only when all have ended.
LONGEST_TRACEBACK = 4000


@dataclass(frozen=True)
class Place:
    """Where a process stands among all processes of a run."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    init_method: str


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
    device: str = "auto",
) -> Any:
    """Run ``main_func(*args)`` in every process of a training run.

    Under ``torchrun``, or in a job step of ``srun`` with several tasks, this process joins the
    others and calls the function. Otherwise ``num_gpus_per_machine`` processes are spawned here,
    unless one process is all there is, which calls the function directly.

    Args:
        main_func: The function; importable by name, since spawned processes import it.
        num_gpus_per_machine: Processes on each machine, one per device.
        num_machines: Number of machines; each runs the same command.
        machine_rank: Index of this machine.
        dist_url: ``tcp://host:port`` of machine 0, or ``"auto"`` for a free port on this machine.
        args: Arguments of ``main_func``.
        timeout: How long a process waits for the others.
        device: ``MODEL.DEVICE`` of the run; on ``cpu`` the processes talk through gloo.

    Returns:
        What ``main_func`` returned if it ran in this process, else None.

    Raises:
        UserError: The arguments do not fit together or the machine.
        SystemExit: The processes ended on a signal, after they saved a checkpoint.
    """
    place = _place_from_torchrun() or _place_from_slurm()
    if place is not None:
        with _process_group(place, device, timeout):
            return main_func(*args)
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        return main_func(*args)
    _check_devices(num_gpus_per_machine, device)
    init_method = _init_method(dist_url, num_machines)
    places = [
        Place(
            rank=machine_rank * num_gpus_per_machine + local_rank,
            world_size=world_size,
            local_rank=local_rank,
            local_size=num_gpus_per_machine,
            init_method=init_method,
        )
        for local_rank in range(num_gpus_per_machine)
    ]
    # Forking would copy the state of threads and of a device that is in use already.
    context = mp.get_context("spawn")
    failures = context.SimpleQueue()
    processes = [
        context.Process(
            target=_spawned_main, args=(place, main_func, args, timeout, device, failures)
        )
        for place in places
    ]
    for process in processes:
        process.start()
    _join(processes, failures)
    return None


def _spawned_main(
    place: Place,
    main_func: Callable[..., Any],
    args: tuple,
    timeout: timedelta,
    device: str,
    failures: Any,
) -> None:
    set_death_signal = getattr(mp, "_prctl_pr_set_pdeathsig", None)
    if set_death_signal is not None:
        # Nobody else would end this process if the one that spawned it were killed.
        set_death_signal(signal.SIGTERM)
    os.environ.update(LOCAL_RANK=str(place.local_rank), LOCAL_WORLD_SIZE=str(place.local_size))
    # Told before the group is closed: its closing makes the partners fail, and tell, too.
    with _told(failures), _process_group(place, device, timeout), _told(failures):
        main_func(*args)


@contextlib.contextmanager
def _told(failures: Any) -> Iterator[None]:
    """Hand what goes wrong to the parent, which knows what is only an echo of another failure."""
    try:
        yield
    except UserError as error:
        failures.put((USER_ERROR, str(error)))
        raise SystemExit(USER_ERROR) from None
    except Exception:
        failures.put((1, traceback.format_exc()[-LONGEST_TRACEBACK:]))
        raise SystemExit(1) from None


def _join(processes: list[mp.Process], failures: Any) -> None:
    """Wait for the spawned processes; forward a request to stop; end all when one fails.

    Raises:
        UserError: A process stopped because of a user's mistake.
        SystemExit: The processes saved a checkpoint and left on a signal.
        RuntimeError: A process failed; the message holds the traceback of the first.
    """
    with _signals_forwarded_to(processes):
        running = list(processes)
        while running:
            wait([process.sentinel for process in running])
            ended = [process for process in running if not process.is_alive()]
            running = [process for process in running if process not in ended]
            if any(process.exitcode not in (0, *INTERRUPTED) for process in ended):
                _end(running)
                break
    codes = [process.exitcode for process in processes]
    told = []
    while not failures.empty():
        told.append(failures.get())
    for code, text in told:
        if code == USER_ERROR:
            raise UserError(text)
    failed = [rank for rank, code in enumerate(codes) if code not in (0, *INTERRUPTED)]
    if failed:
        why = f":\n{told[0][1]}" if told else "."
        raise RuntimeError(
            f"Processes {failed} of {len(processes)} failed with exit codes "
            f"{[codes[rank] for rank in failed]}{why}"
        )
    if any(codes):
        raise SystemExit(max(codes))


def _end(processes: list[mp.Process]) -> None:
    """End processes whose partner is gone; they may be stuck waiting for it."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(GRACE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def _signals_forwarded_to(processes: list[mp.Process]) -> Iterator[None]:
    def forward(signum: int, frame: Any) -> None:
        # SIGTERM in both cases: on Ctrl-C the terminal has told the children already, and a
        # second SIGINT would make them stop without a checkpoint.
        for process in processes:
            if process.is_alive():
                process.terminate()

    previous = {}
    # Outside of the main thread handlers cannot be set, and no signals arrive.
    with contextlib.suppress(ValueError):
        previous = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _process_group(place: Place, device: str, timeout: timedelta) -> Iterator[None]:
    """The default process group, and one per machine, for the time of a run."""
    use_cuda = _uses_cuda(device)
    if use_cuda:
        torch.cuda.set_device(place.local_rank)
    already = dist.is_initialized()
    if not already:
        try:
            dist.init_process_group(
                backend="nccl" if use_cuda else "gloo",
                init_method=place.init_method,
                world_size=place.world_size,
                rank=place.rank,
                timeout=timeout,
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(
                f"Process {place.rank} of {place.world_size} could not join the others at "
                f"'{place.init_method}': {error}; check --dist-url, --num-machines and "
                "--machine-rank."
            ) from error
    try:
        comm.synchronize()
        if place.world_size % place.local_size == 0:
            for first in range(0, place.world_size, place.local_size):
                # Making a group is collective: every process makes those of all machines.
                group = dist.new_group(list(range(first, first + place.local_size)))
                if first <= place.rank < first + place.local_size:
                    comm._LOCAL_PROCESS_GROUP = group
        yield
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        if not already:
            dist.destroy_process_group()


def _uses_cuda(device: str) -> bool:
    return torch.cuda.is_available() and (device == "auto" or device.startswith("cuda"))


def _check_devices(wanted: int, device: str) -> None:
    if device == "mps":
        raise UserError("Several processes cannot share MODEL.DEVICE mps; use --num-gpus 1.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"--num-gpus {wanted} with MODEL.DEVICE {device}, but this machine has no CUDA device."
        )
    if _uses_cuda(device) and torch.cuda.device_count() < wanted:
        raise UserError(
            f"--num-gpus is {wanted}, but this machine has {torch.cuda.device_count()} CUDA "
            "devices; lower it, or train on processors with MODEL.DEVICE cpu."
        )


def _init_method(dist_url: str | None, num_machines: int) -> str:
    if dist_url in (None, "", "auto"):
        if num_machines > 1:
            raise UserError(
                "Several machines need --dist-url tcp://HOST:PORT with the address of machine 0."
            )
        return f"tcp://127.0.0.1:{_free_port()}"
    if num_machines > 1 and dist_url.startswith("file://"):
        logger.warning("file:// is not reliable between machines; prefer tcp://HOST:PORT.")
    return dist_url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _place_from_torchrun() -> Place | None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if any(name not in os.environ for name in names):
        return None
    return Place(
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        init_method="env://",
    )


def _place_from_slurm() -> Place | None:
    """The place of a task that srun started.

    A batch script, or a shell in an allocation, has most variables too, but no step of several
    tasks: there ``--num-gpus`` spawns as usual.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if "SLURM_PROCID" not in os.environ or "SLURM_STEP_ID" not in os.environ or tasks < 2:
        return None
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_NODELIST"]
    host = os.environ.get("MASTER_ADDR") or first_host(nodes)
    # Jobs that share a machine must not share a port.
    port = os.environ.get("MASTER_PORT") or 20000 + int(os.environ["SLURM_JOB_ID"]) % 20000
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", str(tasks))
    local_rank = int(os.environ["SLURM_LOCALID"])
    os.environ["LOCAL_RANK"] = str(local_rank)
    return Place(
        rank=int(os.environ["SLURM_PROCID"]),
        world_size=tasks,
        local_rank=local_rank,
        local_size=int(re.match(r"\d+", per_node).group()),
        init_method=f"tcp://{host}:{port}",
    )


def first_host(nodelist: str) -> str:
    """The first name of a SLURM node list, ``gpu[003-005,9],cpu1`` -> ``gpu003``."""
    match = re.match(r"([^\[,]+)(?:\[([^\],-]+)[^\]]*\]([^\[,]*))?", nodelist)
    if match is None:
        raise UserError(f"SLURM_STEP_NODELIST '{nodelist}' names no machine; set MASTER_ADDR.")
    prefix, number, suffix = match.groups()
    return prefix + (number or "") + (suffix or "")
