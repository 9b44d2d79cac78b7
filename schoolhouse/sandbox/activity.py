"""State of a program: it computes, waits for a busy core, or sleeps.

Only `/proc` has it, which a process behind Landlock cannot open, and which numbers processes as they are outside a
PID namespace. So the fork server asks its parent, which is in neither, and names the program by a descriptor.
"""

import contextlib
import json
import os
import re
import socket
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Activity:
    """
    What a program did at one moment.

    Args:
        threads (`int`):
            Its threads.
        awake (`bool`):
            Whether one of them ran, was ready to run or waited for memory.
        runner_awake (`bool`):
            Whether the test runner did: a program sleeps until it is called.
    """

    threads: int
    awake: bool
    runner_awake: bool


def ask(parent: socket.socket, pidfd: int) -> Activity | None:
    """Ask the parent about the process of a descriptor; `None` where it cannot tell."""
    socket.send_fds(parent, [b"?"], [pidfd])
    answer = json.loads(parent.recv(100))
    return Activity(**answer) if answer else None


def answer(requests: socket.socket, test_runner: int) -> None:
    """Answer the requests of [`ask`] until the fork server has gone."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
        if not packet:
            return
        activity = None
        with contextlib.suppress(OSError):  # no /proc, one that hides processes, or a process that has just ended
            if program := re.search(r"^Pid:\s*(\d+)", Path(f"/proc/self/fdinfo/{descriptors[0]}").read_text(), re.M):
                states = _states(program[1])
                activity = Activity(len(states), _awake(states), _awake(_states(test_runner)))
        os.close(descriptors[0])
        requests.send(json.dumps(activity and asdict(activity)).encode())


def _awake(states: list[str]) -> bool:
    return any(state in "RD" for state in states)


def _states(pid: str | int) -> list[str]:
    # The name of a thread, in parentheses, may hold blanks and parentheses.
    return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
