"""A file system without locks and hard links, as a C library that is loaded before all others.

NFS without a lock daemon, Lustre without `flock`, Azure Files and exFAT answer so. The library
changes what the programs that are started with it see below one folder; they are otherwise real.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int below(const char *path) {
  const char *folder = getenv("POOR_FOLDER");
  return folder && !strncmp(path, folder, strlen(folder));
}

static int file_below(int file) {
  char link[64], path[PATH_MAX];
  int before = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = before;
  if (length < 0) return 0;
  path[length] = 0;
  return below(path);
}

static int name_below(int folder, const char *name) {
  char here[PATH_MAX];
  if (name[0] == '/') return below(name);
  return folder == AT_FDCWD ? getcwd(here, sizeof here) && below(here) : file_below(folder);
}

static int refused(const char *variable) {
  errno = atoi(getenv(variable));
  return -1;
}

int flock(int file, int operation) {
  if (file_below(file)) return refused("POOR_LOCK");
  return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, operation);
}

static int control(const char *symbol, int file, int command, void *argument) {
  int locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK ||
              command == F_OFD_SETLKW;
  if (locks && file_below(file)) return refused("POOR_LOCK");
  return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, symbol))(file, command, argument);
}

int fcntl(int file, int command, ...) {
  va_list more;
  va_start(more, command);
  void *argument = va_arg(more, void *);
  va_end(more);
  return control("fcntl", file, command, argument);
}

int fcntl64(int file, int command, ...) {
  va_list more;
  va_start(more, command);
  void *argument = va_arg(more, void *);
  va_end(more);
  return control("fcntl64", file, command, argument);
}

int linkat(int from, const char *name, int to, const char *other, int flags) {
  if (name_below(to, other)) return refused("POOR_LINK");
  return ((int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat"))(
      from, name, to, other, flags);
}

int link(const char *name, const char *other) {
  return linkat(AT_FDCWD, name, AT_FDCWD, other, 0);
}
"""


COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def poor_file_system(
    scratch: Path, folder: Path, *, lock: int = errno.ENOLCK, link: int = errno.EOPNOTSUPP
) -> Mapping[str, str]:
    """The environment of programs for which a folder is on such a file system.

    Args:
        scratch: where the library is built.
        folder: it and all below it has no locks and no hard links.
        lock: what locks answer.
        link: what hard links answer.
    """
    if COMPILER is None:
        pytest.skip("a file system without locks is a C library, and there is no C compiler here")
    source, library = scratch / "poor.c", scratch / "poor.so"
    if not library.exists():
        source.write_text(_SOURCE)
        subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {
        "LD_PRELOAD": " ".join(filter(None, (str(library), os.environ.get("LD_PRELOAD")))),
        "POOR_FOLDER": str(folder),
        "POOR_LOCK": str(lock),
        "POOR_LINK": str(link),
    }
