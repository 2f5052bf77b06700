"""Runs pipelines until they have ended or a signal stops them. The calls here block."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from broadway_py.daemon.logs import logs
from broadway_py.daemon.pipelines.defaults import tell_of_defaults
from broadway_py.daemon.pipelines.new_files import tell_of_new_files
from broadway_py.daemon.pipelines.roster import Roster
from broadway_py.daemon.pipelines.service import Reload, Service
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.process.main_thread import Watch
from broadway_py.daemon.process.service_manager import service_manager
from broadway_py.daemon.process.startup import hidden_variables, noting
from broadway_py.daemon.reload.code_files import loaded_code
from broadway_py.daemon.reload.resolved import resolved
from broadway_py.daemon.reload.turns import ReloadTurns
from broadway_py.daemon.settings.settings import Http, Log, Settings
from broadway_py.log import logger
from broadway_py.pipeline import Pipeline

__all__ = ["log_hidden_variables", "run", "run_settings"]

log = logger("broadway_py.daemon")


def run(*pipelines: Pipeline[Any], port: int | None = None, host: str = "127.0.0.1") -> int:
    """Runs *pipelines* until their sources have ended, or until SIGTERM or SIGINT has drained them.

    Call it from the main thread, as ``sys.exit(run(Orders(...)))``. A second signal cuts the drain short. The event
    loop runs in its own thread. So a handler that blocks the loop delays the return by at most two seconds past
    ``shutdown_timeout``. If nobody has set up logging, it is set up as ``broadway run`` does.

    Args:
        pipelines: at least one pipeline. Their names must differ.
        port: the port that serves the live page, metrics and health checks (needs the extra ``daemon``). 0 takes a free
            port. None serves nothing.
        host: the address to listen on. Pipelines can be controlled over HTTP only if it is a loopback address.

    Returns:
        The exit code. 0: clean; 1: a pipeline crashed; 75: the drain ran out of time.

    Raises:
        OptionsError: a setting is wrong, *port* included.
    """
    if not pipelines:
        raise TypeError("run() takes at least one pipeline, got none")
    # A signal that comes while HTTP is imported is noted, and acted on after the import.
    with noting():
        if not logging.getLogger().handlers:
            logs.configure(Log())
        service_manager()  # takes its variables out of the environment, before the user's code starts other programs
        http = None if port is None else Http(host=host, port=port)
        return Watch(_service(list(pipelines), http)).run()


def run_settings(settings: Settings, read: Callable[[], Settings]) -> int:
    """Runs the pipelines of *settings*, in this process or in workers. Returns the exit code, as :func:`run` does.

    Args:
        settings: the settings.
        read: reads them again, as at the start. Each reload calls it, in a thread.

    Raises:
        OptionsError: a setting is wrong. Nothing runs any more.
    """
    from broadway_py.daemon.pipelines.loader import build_pipelines  # noqa: PLC0415  # run() needs no extras
    from broadway_py.daemon.pipelines.reloading import Reloading  # noqa: PLC0415  # the same

    service_manager()  # takes its variables out of the environment, before the user's code starts other programs
    now = resolved(settings)
    pipelines = build_pipelines(settings, share=(0, settings.workers))
    if settings.workers == 1:
        reloading = Reloading(now, lambda: resolved(read()), code=loaded_code())
        return Watch(_service(pipelines, settings.http, reloading, lambda: reloading.settings)).run()
    tell_of_defaults(pipelines)
    tell_of_new_files(pipelines, settings.workers)
    from broadway_py.daemon.workers import rollout, supervisor  # noqa: PLC0415  # prometheus_client and aiohttp: an extra

    reloads = rollout.Rollout(now, pipelines, lambda: resolved(read()), loaded_code())
    return Watch(supervisor.Supervisor(now, pipelines, reloads), grace=supervisor.GRACE).run()


def log_hidden_variables() -> None:
    """Logs which variables were removed from the environment."""
    for name in hidden_variables():
        log.warning(
            "an environment variable is ignored: the daemon adds up the metrics of its workers without files",
            variable=name,
        )


def _service(
    pipelines: list[Pipeline[Any]],
    http: Http | None,
    reload: Reload | None = None,
    settings: Callable[[], Settings] | None = None,
) -> Service:
    tell_of_defaults(pipelines)
    lag, roster, reloads = LagMeter(), Roster(pipelines), ReloadTurns()
    if http is None:
        return Service(roster, lag, reload=reload, reloads=reloads)
    for pipeline in pipelines:
        pipeline._counts_sources = http.source_messages
    try:
        from broadway_py.daemon.http.server import serve  # noqa: PLC0415  # aiohttp: an extra
        from broadway_py.daemon.http.view import LocalView  # noqa: PLC0415  # prometheus_client: an extra
    except ImportError as missing:
        raise ImportError(
            f"serving HTTP needs {missing.name}, which is not installed: pip install 'broadway-py[daemon]'"
        ) from missing
    replays = None
    if settings is not None:
        from broadway_py.daemon.dead_letters.replays import Replays  # noqa: PLC0415  # run() needs no extras

        replays = Replays(settings)
    listening = serve(http, LocalView(roster, lag, reloads, settings), replays)
    return Service(roster, lag, listening=listening, reload=reload, reloads=reloads)
