"""`python -m mmbeit TOOL ...`: run a script of `tools/`, from a checkout or from a wheel."""

import ast
import runpy
import sys
from pathlib import Path

from mmbeit.engine.errors import suggest
from mmbeit.resources import resource_root

USAGE = """usage: python -m mmbeit TOOL [arguments]; `python -m mmbeit TOOL -h` explains them
On several devices: torchrun --nproc_per_node N -m mmbeit TOOL [arguments] --launcher pytorch

tools:"""


def find_tools() -> dict[str, Path]:
    """Scripts by name, the one nearest to the top of `tools/` where two have the same; not the modules beside them."""
    root = resource_root() / 'tools'
    paths = sorted(root.rglob('*.py'), key=lambda path: (-len(path.parts), path))
    paths = [path for path in paths if "\nif __name__ == '__main__':" in path.read_text()]
    return dict(sorted({path.stem: path for path in paths}.items()))


def summary(path: Path) -> str:
    """First line of a script's docstring, without the command that it ends in."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or '').splitlines()
    return lines[0].partition(': `')[0].rstrip('.') if lines else ''


def main() -> None:
    tools = find_tools()
    name, *rest = sys.argv[1:] or ['-h']
    if name in ('-h', '--help'):
        width = max(map(len, tools))
        print(USAGE, *(f'  {name:{width}}  {summary(path)}' for name, path in tools.items()), sep='\n')
    elif name in tools:
        sys.argv = [str(tools[name]), *rest]
        sys.path.insert(0, str(tools[name].parent))  # as Python does for a script: of modules beside it
        runpy.run_path(sys.argv[0], run_name='__main__')
    else:
        close = suggest(name, tools, 0.5) or f'; there are {", ".join(tools)}'
        print(f'error: no tool {name!r}{close}', file=sys.stderr)
        raise SystemExit(2)


if __name__ == '__main__':
    main()
