"""The process that listens: addresses, slow heads of requests, and an end that loses no answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from samo.errors import EnvironmentProblem
from samo.serve.service import Service

__all__ = ["is_loopback", "listening", "serve"]

_LOOK_S = 0.05
_BACKLOG = 512
# Until whoever is cut off has taken the 503.
_LAST_WORD_S = 1.0


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listening(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes any that is free.

    Raises:
        EnvironmentProblem: the address is taken or not this machine's.
    """
    bare = host.strip("[]")
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # Without the protocol asyncio does not know that it is TCP, and each answer waits 40 ms (Nagle's algorithm).
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise EnvironmentProblem(f"cannot listen at {host}: {error.strerror or error}") from error
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
        # Who comes while models are loaded waits, and is not turned away.
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise EnvironmentProblem(
            f"cannot listen at {host}, port {port}: {error.strerror}", hint="name another `port`, or 0 for a free one"
        ) from error
    opened.set_inheritable(True)
    return opened


def serve(app: FastAPI, sockets: Collection[socket.socket]) -> None:
    """Answer until SIGTERM or Ctrl-C: then requests that have begun are answered, and new ones get 503.

    Those that go on beyond ``drain_timeout`` or a second signal get 503 as well. If a model still computes then, this
    does not return: the process ends with status 0, since nothing else could stop that thread.
    """
    service: Service = app.state.service

    class Protocol(_Impatient):
        header_s = service.limits.header_timeout

    settings = uvicorn.Config(
        app, http=Protocol, ws="none", lifespan="on", loop="asyncio", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=math.ceil(service.limits.header_timeout),
    )  # fmt: skip
    _Draining(settings, service).run(list(sockets))
    if service.computing:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(0)


class _Impatient(H11Protocol):
    """A connection that is closed when the head of a request takes too long; uvicorn would wait for ever."""

    header_s = 10.0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The clock runs from the beginning."""
        super().connection_made(transport)
        self._late = self.loop.call_later(self.header_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        """The clock stops with a complete head, and runs again where another has begun."""
        super().data_received(data)
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting and self._late:
            self._late.cancel()
            self._late = None
        elif waiting and self._late is None:
            self._late = self.loop.call_later(self.header_s, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left running."""
        if self._late:
            self._late.cancel()
        super().connection_lost(exc)


class _Draining(uvicorn.Server):
    """A server whose first SIGTERM or Ctrl-C lets it finish, and whose second ends it."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the process with status 0: that is how a server ends."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._service.draining:
            if self._drain and not self._service.cut_off:
                self._drain.cancel()
                self._drain = asyncio.get_running_loop().create_task(self._cut())
            return
        self._service.draining = True
        logging.getLogger(__name__).warning("stopping: %d requests are still answered", self._service.active)
        self._drain = asyncio.get_running_loop().create_task(self._finish())

    async def _finish(self) -> None:
        until = asyncio.get_running_loop().time() + self._service.limits.drain_timeout
        while self._service.active and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_LOOK_S)
        if self._service.active:
            await self._cut()
            return
        self.should_exit = True
        await asyncio.sleep(max(_LAST_WORD_S, until - asyncio.get_running_loop().time()))
        self._abort()

    async def _cut(self) -> None:
        logging.getLogger(__name__).warning("stopping: %d requests are cut off", self._service.active)
        await self._service.cut(_LAST_WORD_S)
        self.should_exit = True
        await asyncio.sleep(_LAST_WORD_S)
        self._abort()

    def _abort(self) -> None:
        """Wait no longer for those who do not read what is sent."""
        self.force_exit = True
        for connection in list(self.server_state.connections):
            if transport := getattr(connection, "transport", None):
                transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close log and decoders in any case; uvicorn would leave them open when it is in a hurry."""
        try:
            await super().shutdown(sockets)
        finally:
            await self._service.stop()
