"""Start one program that ends when its parent ends.

Run as a script by the interpreter in isolated mode (it imports nothing of the mesh, so it costs some 25 ms):

    python -I -S launch.py <signal> <parent pid> <uid:gid or -> <program> <arguments...>

Linux sends the signal to the program when the process that started it dies, however it died. The signal is set here,
between fork and exec of a fresh interpreter, because code between fork and exec of a process with gRPC threads can
hang, and after the change of user, because that change would clear it.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Replace this process by the program. Exit status 127 when that is impossible."""
    death_signal, parent_id, account, *command = arguments
    if account != "-":
        user_id, group_id = (int(part) for part in account.split(":"))
        os.setgroups([group_id])
        os.setgid(group_id)
        os.setuid(user_id)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent_id):
        sys.exit("the parent ended before its child began")
    try:
        os.execv(command[0], command)  # noqa: S606 - there is no shell here by intention
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
