"""Shuts what a pure block could ask beside its inputs: clock, chance, environment, files, network.

Called once by a worker that will run pure blocks only, after it has locked itself in and before its first claim;
there is no way back, and such a process serves nothing else. These are Python's own doors. The sandbox stands behind
them (no network, no files but libraries and the playbook's cache folder, and in such a process no uname, times and
getrusage); the vDSO's clock and the processor's counters it cannot hold, so who goes past Python gets them.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import gc
import locale
import os
import posix
import signal
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from edge.tools.purity import CHANCE, CLOCK, ENVIRONMENT, FILES, NETWORK, WATCH, refuse

if TYPE_CHECKING:
    from importlib.abc import Loader

_CLOCKS: Final = (
    *("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime"),
    *("time_ns", "monotonic_ns", "perf_counter_ns", "process_time_ns", "thread_time_ns", "clock_gettime_ns"),
    *("clock_getres", "get_clock_info"),
)
#: These look at the clock where no time is given: name to the number of arguments that give one.
_CLOCKS_BY_DEFAULT: Final = {"gmtime": 1, "localtime": 1, "ctime": 1, "asctime": 1, "strftime": 2}
_PYARROW: Final = "PYARROW_"
_ENVIRONMENT: Final = (
    *(
        "getpid",
        "getppid",
        "getpgrp",
        "getpgid",
        "getsid",
        "getuid",
        "geteuid",
        "getgid",
        "getegid",
        "getgroups",
    ),
    *(
        "getresuid",
        "getresgid",
        "getlogin",
        "uname",
        "getloadavg",
        "cpu_count",
        "process_cpu_count",
        "getcwd",
    ),
    *(
        "sched_getaffinity",
        "getcwdb",
        "get_terminal_size",
        "ctermid",
        "ttyname",
        "sysconf",
        "confstr",
        "umask",
    ),
)
_FILES: Final = ("stat", "lstat", "statvfs", "access", "readlink", "getxattr", "listxattr", "pathconf")
#: Audit events that a pure block may not cause (docs.python.org/3/library/audit_events.html), by beginning.
_EVENTS: Final = (
    ("socket.", NETWORK),
    ("ctypes.", ENVIRONMENT),
    ("subprocess.", ENVIRONMENT),
    ("os.fork", ENVIRONMENT),
    ("os.exec", ENVIRONMENT),
    ("os.posix_spawn", ENVIRONMENT),
    ("os.system", ENVIRONMENT),
    ("os.putenv", ENVIRONMENT),
    ("os.unsetenv", ENVIRONMENT),
    ("resource.", ENVIRONMENT),
    ("os.", FILES),
    ("sqlite3.", FILES),
    ("fcntl.", FILES),
)
_EVENTS_WITH_PATH: Final = frozenset({"open", "os.listdir", "os.scandir", "os.chdir"})
_HARMLESS_EVENTS: Final = frozenset({"os.walk", "os.fwalk"})

_libraries: tuple[str, ...] = ()


def shut(libraries: tuple[str, ...]) -> None:
    """Shut every door of this process. What lies below the `libraries` may be read: it is the code itself."""
    global _libraries
    _libraries = tuple(sorted(path for path in libraries if not path.startswith("/dev/")))
    _shut_settings()
    _shut_clock()
    for name in _ENVIRONMENT:
        _replace((os, posix), name, lambda real, name: _asking(real, f"os.{name}", ENVIRONMENT))
    for name in _FILES:
        _replace((os, posix), name, lambda real, name: _reading(real, f"os.{name}"))
    _replace((os, posix), "times", lambda real, name: _asking(real, "os.times", CLOCK))
    for name in ("urandom", "getrandom"):
        _replace((os, posix), name, lambda real, name: _rolling(real, f"os.{name}"))
    for name in ("getitimer", "setitimer", "alarm"):
        _replace((signal,), name, lambda real, name: _asking(real, f"signal.{name}", CLOCK))
    _shut_pyarrow()
    for name, change in _WHEN_IMPORTED.items():
        if name in sys.modules:
            change(sys.modules[name])
    sys.meta_path.insert(0, _ChangedOnImport())
    sys.addaudithook(_audit)
    WATCH.installed = True


# ---- what stands in the place of a call ----------------------------------------------------------------


def _replace(
    modules: tuple[ModuleType, ...], name: str, make: Callable[[Callable[..., Any], str], Callable[..., Any]]
) -> None:
    real = getattr(modules[0], name, None)
    if real is None:
        return
    shut_one = make(real, name)
    for module in modules:
        setattr(module, name, shut_one)


def _asking(real: Callable[..., Any], call: str, what: str, fixed: Any = None) -> Callable[..., Any]:
    """Refused to the block; a library being imported gets `fixed`, or the real answer where that is None."""

    def shut_call(*args: Any, **named: Any) -> Any:
        if refuse(call, what) and fixed is not None:
            return fixed
        return real(*args, **named)

    return shut_call


def _rolling(real: Callable[..., Any], call: str) -> Callable[..., Any]:
    def shut_call(size: int, *args: Any) -> bytes:
        if refuse(call, CHANCE):
            return bytes(size)
        return bytes(real(size, *args))

    return shut_call


def _reading(real: Callable[..., Any], call: str) -> Callable[..., Any]:
    """Paths of libraries may be looked at, and what is open already."""

    def shut_call(path: Any, *args: Any, **named: Any) -> Any:
        if WATCH.on and (named.get("dir_fd") is not None or not _is_library(path)):
            refuse(call, FILES)
        return real(path, *args, **named)

    return shut_call


def _is_library(path: Any) -> bool:
    if isinstance(path, int):
        return True
    try:
        text = os.fsdecode(path)
    except TypeError:
        return True  # the real call says what it thinks of it
    return text.startswith(_libraries) and "/../" not in text


# ---- clock, zone, locale, environment ------------------------------------------------------------------


def _shut_settings() -> None:
    """No environment, UTC, the plain locale: the same on every box."""
    os.environ.clear()
    os.putenv("TZ", "UTC0")
    time.tzset()
    for name in ("C.UTF-8", "C"):
        try:
            locale.setlocale(locale.LC_ALL, name)
            break
        except locale.Error:
            continue
    sys.argv[:] = [""]
    for name in ("environ", "environb"):
        setattr(os, name, _Nothing())
    posix.environ.clear()


class _Nothing(MutableMapping[Any, Any]):
    """The environment of a pure block: there is none to look at. Libraries being imported find it empty."""

    def __getitem__(self, key: Any) -> Any:
        # pyarrow asks for its own switches at every array it makes, from C, so that the block seems to ask.
        if not str(key).startswith(_PYARROW):
            refuse("os.environ", ENVIRONMENT)
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        refuse("os.environ", ENVIRONMENT)

    def __delitem__(self, key: Any) -> None:
        refuse("os.environ", ENVIRONMENT)

    def __iter__(self) -> Iterator[Any]:
        refuse("os.environ", ENVIRONMENT)
        return iter(())

    def __len__(self) -> int:
        refuse("os.environ", ENVIRONMENT)
        return 0


def _shut_clock() -> None:
    for name in _CLOCKS:
        fixed = {"clock_getres": None, "get_clock_info": None}.get(name, 0 if name.endswith("_ns") else 0.0)
        _replace((time,), name, partial(_clock, fixed))
    for name, given in _CLOCKS_BY_DEFAULT.items():
        _replace((time,), name, partial(_telling, given))
    for kind, name in ((dt.datetime, "now"), (dt.datetime, "utcnow"), (dt.date, "today")):
        _replace_in_type(kind, name, _now(kind.__dict__[name], f"datetime.{kind.__name__}.{name}"))


def _clock(fixed: Any, real: Callable[..., Any], name: str) -> Callable[..., Any]:
    return _asking(real, f"time.{name}", CLOCK, fixed)


def _telling(given: int, real: Callable[..., Any], name: str) -> Callable[..., Any]:
    def shut_call(*args: Any) -> Any:
        if len(args) < given and refuse(f"time.{name}", CLOCK):
            args = (*args, real.__self__.gmtime(0) if given == 2 else 0)  # type: ignore[attr-defined]
        return real(*args)

    return shut_call


def _now(real: Any, call: str) -> classmethod[Any, Any, Any]:
    def shut_call(kind: Any, *args: Any, **named: Any) -> Any:
        if refuse(call, CLOCK):
            return kind(1970, 1, 1)
        return real.__get__(None, kind)(*args, **named)

    return classmethod(shut_call)


def _replace_in_type(kind: type, name: str, value: Any) -> None:
    """Types of C have no assignable attributes; their real namespace is behind the proxy they show."""
    namespace: dict[str, Any] = gc.get_referents(kind.__dict__)[0]
    namespace[name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


# ---- libraries -----------------------------------------------------------------------------------------


def _shut_random(module: Any) -> None:
    """Its own generator must be seeded by the block, and every other one with a seed."""
    real_seed, own = module.Random.seed, module._inst

    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        if a is None and refuse("random without a seed", CHANCE):
            a = 0
        if self is own and a is not None:
            WATCH.seeded = True
        real_seed(self, a, version)

    def guarded(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def shut_call(*args: Any, **named: Any) -> Any:
            if not WATCH.seeded:
                refuse(f"random.{name}", CHANCE)
            return real(*args, **named)

        return shut_call

    module.Random.seed = seed
    for name, real in list(vars(module).items()):
        if getattr(real, "__self__", None) is own and name not in ("seed", "setstate"):
            setattr(module, name, guarded(real, name))
    module.seed = own.seed
    module._urandom = os.urandom


def _shut_uuid(module: Any) -> None:
    for name, what in (("uuid1", CLOCK), ("uuid4", CHANCE), ("getnode", ENVIRONMENT)):
        setattr(module, name, _asking(getattr(module, name), f"uuid.{name}", what))


def _shut_platform(module: Any) -> None:
    for name in ("uname", "node", "release", "version", "machine", "processor", "platform"):
        setattr(module, name, _asking(getattr(module, name), f"platform.{name}", ENVIRONMENT))


def _shut_resource(module: Any) -> None:
    module.getrusage = _asking(module.getrusage, "resource.getrusage", CLOCK)


def _shut_socket(module: Any) -> None:
    module.gethostname = _asking(module.gethostname, "socket.gethostname", ENVIRONMENT)


_WHEN_IMPORTED: Final[dict[str, Callable[[Any], None]]] = {
    "random": _shut_random,
    "uuid": _shut_uuid,
    "platform": _shut_platform,
    "resource": _shut_resource,
    "socket": _shut_socket,
}


def _shut_pyarrow() -> None:
    """Arrow's own ways to files and to chance; they are C++, which no audit hook sees."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def rolling(real: Callable[..., Any]) -> Callable[..., Any]:
        def shut_call(*args: Any, **named: Any) -> Any:
            if named.get("initializer", "system") == "system":
                refuse("pyarrow.compute.random without an initializer", CHANCE)
            return real(*args, **named)

        return shut_call

    def calling(real: Callable[..., Any]) -> Callable[..., Any]:
        def shut_call(name: str, *args: Any, **named: Any) -> Any:
            if name == "random" and "initializer=Seed" not in repr((args, named)):
                refuse("pyarrow.compute.call_function('random')", CHANCE)
            return real(name, *args, **named)

        return shut_call

    setattr(pc, "random", rolling(pc.random))  # noqa: B010 (its stubs know no such name)
    pc.call_function = calling(pc.call_function)
    for name in (
        "memory_map",
        "create_memory_map",
        "OSFile",
        "MemoryMappedFile",
        "input_stream",
        "output_stream",
    ):
        setattr(pa, name, _asking(getattr(pa, name), f"pyarrow.{name}", FILES))
    pa.cpu_count = _asking(pa.cpu_count, "pyarrow.cpu_count", ENVIRONMENT)


class _ChangedOnImport:
    """Shuts the doors of a library that is imported later."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Find it as Python does, to be changed once it is there; None for all others."""
        change = _WHEN_IMPORTED.get(name)
        if change is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = cast("Loader", _Changing(spec.loader, change))
                return spec
        return None


class _Changing:
    def __init__(self, real: Any, change: Callable[[Any], None]) -> None:
        self._real, self._change = real, change

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the library's own loader."""
        return self._real.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """As the library's own loader, then shut its doors."""
        self._real.exec_module(module)
        self._change(module)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    """Python's own account of what C code is about to do for a block."""
    if not WATCH.on:
        return
    if event in _EVENTS_WITH_PATH:
        path = args[0] if args else None
        if isinstance(path, int) or path is None or not _is_library(path):
            refuse("open" if event == "open" else event, FILES)
        return
    for beginning, what in _EVENTS:
        if event.startswith(beginning) and event not in _HARMLESS_EVENTS:
            refuse(event, what)
            return
