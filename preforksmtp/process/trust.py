"""Whose code root runs: its own, that of who has started it with sudo, and this program's; never that of a third user.

Runs in root's master, where a config file, a log_config or a module in the current folder would have all of root's
rights. What another user may change is refused (files), or left to the workers, who import it as their own user
(folders). Who is not root runs what it likes. `but` is the user that workers run as, once it is known: sudo or not, its
word does not count. Fails with OSError, whose strerror is for people.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys

from preforksmtp.process.place import Place, named_descriptor, reach, who_decides

_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_PARENT = os.path.dirname(_PACKAGE)


def trusted_users(but: int | None = None) -> set[int]:
    """Besides root: who started us with sudo (that variable is sudo's, or root's own), and whose files this program is
    made of, for root runs those as it is."""
    uid = os.environ.get("SUDO_UID", "")
    return {os.stat(_PACKAGE).st_uid, *([int(uid)] if uid.isdecimal() else [])} - {but}


# -- files


def read_code(path: str, but: int | None = None) -> bytes:
    """The content of a file that this process is about to obey."""
    if os.geteuid() != 0 or named_descriptor(path) is not None:
        with open(path, "rb") as file:
            return file.read()
    also = trusted_users(but)
    with reach(path, follow=True, also=also) as place:
        fd = place.open(os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            _check_author(place, status, {0, *also})
            return file.read()


def check_code(path: str, but: int | None) -> None:
    """The same of a file that was read before it was known whom workers run as."""
    if os.geteuid() == 0 and named_descriptor(path) is None:
        also = trusted_users(but)
        with reach(path, follow=True, also=also) as place:
            _check_author(place, place.status(), {0, *also})


def settle(config_file: str | None, user: str | None, group: str | None) -> None:
    """Master, when the settings are known: what whoever workers run as may change is not root's after all."""
    if os.geteuid() != 0:
        return
    from preforksmtp.process import privileges

    try:
        identity = privileges.find(user, group)
    except privileges.PrivilegesError:
        return  # said elsewhere; no worker will be there
    import_again()
    if identity is not None and identity.uid != 0:  # else workers have root's rights, and import from everywhere
        pass_over(identity.uid)
        if config_file is not None:
            check_code(config_file, identity.uid)


def _check_author(place: Place, status: os.stat_result, trusted: set[int]) -> None:
    others = place.others
    if status.st_uid not in trusted:
        others = f"it belongs to uid {status.st_uid}"
    elif status.st_mode & stat.S_IWOTH:
        others = "anybody may write to it"
    # sudo names the invoker's own group, which many distributions let write to all files of that user.
    elif status.st_mode & stat.S_IWGRP and str(status.st_gid) not in ("0", os.environ.get("SUDO_GID", "0")):
        others = f"group {status.st_gid} may write to it"
    if others:
        raise OSError(errno.EPERM, f"{others}, so root would obey somebody else; let only root write there")


# -- folders


class _Nothing:
    """What the import system finds in a folder that is passed over."""

    def find_spec(self, name: str, target: object = None) -> None:
        return None

    def invalidate_caches(self) -> None:
        """It stays passed over."""


_NOTHING = _Nothing()


def pass_over(but: int | None = None) -> None:
    """Root's master: import nothing from folders of sys.path that another user may write to. Python's own folders, and
    that of this program, are what they are."""
    if os.geteuid() != 0:
        return
    also = trusted_users(but)
    for entry in sys.path:
        folder = entry or os.getcwd()
        if os.path.isdir(folder) and who_decides(folder, also) and not _is_installed(folder):
            sys.path_importer_cache[folder] = _NOTHING


def import_again() -> None:
    """Worker, as its own user: from all of them."""
    for folder in passed_over():
        del sys.path_importer_cache[folder]


def passed_over() -> list[str]:
    return [folder for folder, finder in sys.path_importer_cache.items() if finder is _NOTHING]


def left_out() -> str:
    """For the end of a line that says what was not found."""
    folders = passed_over()
    return f"; but root imports nothing from {', '.join(folders)}, where others may write" if folders else ""


def _is_installed(folder: str) -> bool:
    import site
    import sysconfig

    library = os.path.realpath(sysconfig.get_paths()["stdlib"])
    installed = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages(), _PARENT}
    path = os.path.realpath(folder)
    return path == library or path.startswith(library + os.sep) or path in map(os.path.realpath, installed)


# -- the program itself


def command_line(folder: str, path: str | None, but: int | None) -> list[str]:
    """How the master starts its program anew, from `folder` and with this search path. Root, with workers of another
    user: OSError where somebody else decides what that would be."""
    arguments = list(sys.orig_argv)
    if os.geteuid() != 0 or not but:
        return arguments
    program, script = arguments[0], sys.argv[0]
    found = os.path.join(folder, program) if os.sep in program else shutil.which(program, path=path)
    for file in (found, os.path.join(folder, script)):
        if file is not None and os.path.isfile(file) and not os.path.realpath(file).startswith(_PACKAGE + os.sep):
            try:
                check_code(file, but)
            except OSError as error:
                raise OSError(error.errno, f"{file}: {error.strerror}") from None
    return _without_folder(arguments, who_decides(folder, trusted_users(but)) if folder != _PARENT else "")


def _without_folder(arguments: list[str], others: str) -> list[str]:
    """Python imports from the current folder first, where it is started with -m or -c."""
    as_module = sys.argv[0] == "-c" or os.path.realpath(sys.argv[0]).startswith(_PACKAGE + os.sep)
    if not others or not as_module or getattr(sys.flags, "safe_path", False):
        return arguments
    if sys.version_info < (3, 11):
        raise OSError(errno.EPERM, f"python -m imports from the current folder, and {others}")
    return [arguments[0], "-P", *arguments[1:]]
