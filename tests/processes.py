"""Code in processes of its own, for what depends on the order of imports or on the number of processes."""

import os
import socket
import subprocess
import sys
import textwrap


def run(code, *paths):
    """Run Python code in a process of its own, with further folders to import from; gives what it prints."""
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([*map(str, paths), *sys.path])},
        capture_output=True,
        text=True,
    )
    return result.stdout.strip() if result.returncode == 0 else result.stderr.strip().splitlines()[-1]


def run_ranks(code, num_ranks, folder):
    """Run Python code that knows `rank` and `folder` in several processes, which can talk to each other (gloo)."""
    start = f"""
import sys
from pathlib import Path
import torch
from torch import distributed
rank, folder = int(sys.argv[1]), Path({str(folder)!r})
distributed.init_process_group('gloo', init_method=f'file://{{folder}}/rendezvous', rank=rank, world_size={num_ranks})
torch.manual_seed(rank)
"""
    # Who leaves while another one is still talking to it may take that one down.
    code = f'{start}{textwrap.dedent(code)}\ndistributed.barrier()\ndistributed.destroy_process_group()\n'
    processes = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', code, str(rank)],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'OMP_NUM_THREADS': '1'},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert not any(process.returncode for process in processes), '\n'.join(errors)


def free_port() -> int:
    """A port that processes can meet at."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]
