"""Code in processes of its own, for what depends on the order of imports."""

import os
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
