"""Nothing needs what only Linux has: macOS and Windows lack some of the system's functions."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cbir_tf").rglob("*.py"))
MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
"""Of the standard library, not on Windows."""
NAMES = {
    # Not on macOS.
    *("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "pipe2"),
    *("eventfd", "memfd_create", "copy_file_range", "splice", "sigtimedwait", "O_DIRECT"),
    *("O_TMPFILE", "O_PATH", "getxattr", "setxattr", "inotify", "epoll", "fdatasync"),
    # Not on Windows.
    *("fork", "forkpty", "getuid", "geteuid", "getgid", "getpgid", "getpgrp", "setsid", "killpg"),
    *("nice", "uname", "statvfs", "sync", "chown", "mkfifo", "sendfile", "getloadavg", "wait"),
    *("waitpid", "sysconf", "pread", "pwrite", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"),
    *("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGCHLD", "alarm"),
    *("setitimer", "pthread_sigmask", "pthread_kill", "sigwait", "SIG_BLOCK", "SIG_SETMASK"),
    *("AF_UNIX", "SO_REUSEPORT", "MSG_DONTWAIT"),
}


def used_unguarded(file: Path) -> list[str]:
    """What a file uses of NAMES and MODULES without a `hasattr` or a `try` for where it is not."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    tried = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id not in ("os", "signal", "socket", "select") or node.attr not in NAMES:
                continue
            guards = (
                f'hasattr({node.value.id}, "{node.attr}")',
                f'({node.value.id}, "{node.attr}"',
            )
            if not any(each in text for each in guards):
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Import) and node not in tried:
            found += [each.name for each in node.names if each.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES and node not in tried:
            found.append(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [node.value] if node.value.startswith(("/proc/", "/dev/", "/sys/")) else []
    return found


def test_no_module_uses_a_function_of_linux_without_a_way_around():
    allowed = {"signal.SIG_BLOCK", "signal.SIG_SETMASK"}  # beside a guarded pthread_sigmask
    used = {str(file.relative_to(ROOT)): set(used_unguarded(file)) - allowed for file in FILES}
    assert len(used) > 100
    assert {file: names for file, names in used.items() if names} == {}


def test_an_unguarded_use_is_seen(tmp_path):
    (tmp_path / "module.py").write_text(
        "import os, fcntl\ntry:\n    import resource\nexcept ImportError:\n    pass\n"
        "os.sched_getaffinity(0)\nopen('/proc/self/status')\n"
        'if hasattr(os, "nice"):\n    os.nice(1)\n'
    )
    assert used_unguarded(tmp_path / "module.py") == [
        "fcntl",
        "os.sched_getaffinity",
        "/proc/self/status",
    ]


# As on Windows, as far as Linux can be made to look like it.
ELSEWHERE = """
import os, signal, sys
for module, name in (
    (os, "sched_getaffinity"), (os, "nice"), (os, "getuid"), (os, "fdatasync"), (os, "sync"),
    (signal, "pthread_sigmask"), (signal, "SIGHUP"),
):
    delattr(module, name)
for name in ("resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
opened = os.open

def open_no_folder(path, *arguments, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return opened(path, *arguments, **options)

os.open = open_no_folder
"""
WORK = """
if __name__ == "__main__":
    from pathlib import Path
    from cbir_tf.commands.cli import program
    from cbir_tf.data.added import added_images, adding
    from cbir_tf.server.pipeline.subprocess_worker import SubprocessWorker

    run, picture = map(Path, sys.argv[1:3])
    with adding(run / "added", picture.read_bytes(), "red", {}):
        pass
    assert len(added_images(run / "added")) == 1
    worker = SubprocessWorker()
    assert worker.run(abs, -1) == 1
    worker.close()
    sys.argv[1:] = ["search", "--run", str(run), str(picture), "-k", "2"]
    raise SystemExit(program())
"""


def test_without_the_functions_of_linux_a_search_an_addition_and_a_worker_go_on(
    run_folder, photos, tmp_path
):
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(next(photos.rglob("*.jpg")).read_bytes())
    (tmp_path / "program.py").write_text(ELSEWHERE + WORK)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", run_folder, picture],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
