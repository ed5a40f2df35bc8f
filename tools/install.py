"""Make .venv and install what the locks name; does nothing when that is done already.

    python3 tools/install.py runtime    what `make demo` and `make up` need
    python3 tools/install.py dev        that, and what `make test` needs

Uses the standard library only: it runs before anything is installed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
LOCKS = {"runtime": "requirements.lock", "dev": "requirements-dev.lock"}
BAR_WIDTH = 32


def main() -> None:
    """Install one of the locks."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older one is told
        sys.exit(f"Kente needs Python 3.11 or later; this is {sys.version.split()[0]}. Try: make PYTHON=python3.12")
    if len(sys.argv) != 2 or sys.argv[1] not in LOCKS:  # noqa: PLR2004 - the script and its argument
        sys.exit(__doc__)
    group = sys.argv[1]
    if is_current(group):
        return
    lock = ROOT / LOCKS[group]
    make_venv()
    install_lock(lock)
    run_pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    (VENV / f"installed-{group}").write_text(fingerprint(group))
    if group == "dev":
        # The larger lock holds the smaller one.
        (VENV / "installed-runtime").write_text(fingerprint("runtime"))


def fingerprint(group: str) -> str:
    """What an installation depends on: the lock, the project's own metadata, and the interpreter."""
    texts = [(ROOT / LOCKS[group]).read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def is_current(group: str) -> bool:
    """Whether the last installation was of this very state."""
    stamp = VENV / f"installed-{group}"
    return Path(PYTHON).exists() and stamp.exists() and stamp.read_text() == fingerprint(group)


def make_venv() -> None:
    """Make the virtual environment, also over one that was cut off half-way."""
    if (
        Path(PYTHON).exists()
        and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    ):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        venv.create(VENV, with_pip=True)
    except (subprocess.CalledProcessError, OSError):
        sys.exit("A virtual environment can't be made. On Debian and Ubuntu: apt install python3-venv")


def run_pip(*arguments: str) -> None:
    """Run pip, and end with its message when it fails."""
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"pip could not install (status {done.returncode}); see above. Is the package index reachable?")


def install_lock(lock: Path) -> None:
    """Install a hashed lock, with a progress bar."""
    total = len(re.findall(r"^[a-z0-9][^=\s]*==", lock.read_text(), re.MULTILINE))
    command = [
        PYTHON,
        *("-m", "pip", "--disable-pip-version-check", "--no-input", "install"),
        *("--require-hashes", "--only-binary=:all:", "--progress-bar=off", "-r", str(lock)),
    ]
    seen = 0
    tail: list[str] = []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as pip:
        for line in pip.stdout or ():
            tail = [*tail[-15:], line]
            if line.startswith(("Collecting", "Requirement already", "Ignoring")):
                seen += 1
                show(min(seen, total), total, "fetching")
            elif line.startswith("Installing collected"):
                show(total, total, "installing")
    if pip.returncode:
        sys.exit(f"\n{''.join(tail)}pip could not install {lock.name}. Is the package index reachable?")
    show(total, total, "ready")
    print(file=sys.stderr)


def show(done: int, total: int, what: str) -> None:
    """Draw the bar; on a terminal over itself, elsewhere a line at each tenth."""
    filled = BAR_WIDTH * done // total
    bar = f"Setting up [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done}/{total} packages, {what}"
    if sys.stderr.isatty():
        print(f"\r{bar:<80}", end="", file=sys.stderr, flush=True)
    elif what != "fetching" or done % max(1, total // 10) == 0:
        print(bar, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
