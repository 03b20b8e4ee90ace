"""Turn percent scripts into notebooks, and execute notebooks in place.

    python tools/nb.py build SCRIPT.py NOTEBOOK.ipynb   # a percent script (`# %%` cells) becomes a notebook, without outputs
    python tools/nb.py run NOTEBOOK.ipynb …             # execute from a fresh kernel, store the outputs, clean the metadata
    python tools/nb.py run                              # every notebook, in the order of the course

Cell ids are the cells' places, so that rebuilding a notebook leaves a readable diff.
"""
import argparse, os, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

def build(script: Path, # percent script
          notebook: Path # .ipynb to write
         ):
    "Write `notebook` from the cells of `script`."
    import jupytext, nbformat
    nb = jupytext.read(script, fmt='py:percent')
    nb.metadata = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    for i, cell in enumerate(nb.cells):
        cell['id'], cell['metadata'] = f'cell-{i:03d}', {}
    notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, notebook)

def run(notebook: Path, timeout: int = 600):
    "Execute `notebook` in its own folder and write it back; returns its seconds."
    import nbformat
    from nbclient import NotebookClient
    from nbdev.clean import clean_nb
    nb = nbformat.read(notebook, as_version=4)
    start = time.perf_counter()
    NotebookClient(nb, timeout=timeout, kernel_name='python3', coalesce_streams=True, resources={'metadata': {'path': str(notebook.parent)}}).execute()
    seconds = time.perf_counter() - start
    clean_nb(nb)
    nbformat.write(nb, notebook)
    return seconds

def notebooks(): return sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if not any(part.startswith(('.', '_')) for part in p.relative_to(ROOT).parts))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest='command', required=True)
    b = sub.add_parser('build'); b.add_argument('script', type=Path); b.add_argument('notebook', type=Path)
    r = sub.add_parser('run'); r.add_argument('notebook', type=Path, nargs='*')
    args = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1') # as the tests have it
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    if args.command == 'build': return build(args.script, args.notebook)
    for p in args.notebook or notebooks():
        print(f'{p.resolve().relative_to(ROOT)} … ', end='', flush=True)
        print(f'{run(p):.0f} s')

if __name__ == '__main__': sys.exit(main())
