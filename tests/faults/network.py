"""A network of several hosts on this machine, whose cables can be pulled: Linux's network namespaces, where permitted.

Each host has a namespace and an address of its own, by which it is named too; all are plugged into one bridge.
"""

import ctypes
import os
import socket
import subprocess
from pathlib import Path

from tests.faults.disks import NotPermitted

NEW_NAMES = 0x04000000  # CLONE_NEWUTS of sched.h
NEW_NETWORK = 0x40000000  # CLONE_NEWNET


class Network:
    """So many hosts; raises NotPermitted where namespaces are not."""

    def __init__(self, count: int):
        self.count, self._name = count, f"faults{os.getpid()}"
        try:
            self._lay()
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise NotPermitted(getattr(error, "stderr", "") or str(error)) from None

    def address(self, rank: int) -> str:
        """That of a host."""
        return f"10.77.0.{rank + 1}"

    def enter(self, rank: int) -> None:
        """Moves this process to a host."""
        library = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{self._host(rank)}").open() as opened:
            moved = library.setns(opened.fileno(), NEW_NETWORK) == library.unshare(NEW_NAMES) == 0
        if not moved:
            raise OSError(ctypes.get_errno(), "no other network")
        socket.sethostname(self.address(rank))  # where gloo listens

    def plug(self, rank: int, is_in: bool) -> None:
        """Plugs the cable of a host in or out."""
        _ip("-n", self._switch, "link", "set", f"port{rank}", "up" if is_in else "down")

    def close(self) -> None:
        """Removes it."""
        for name in (self._switch, *map(self._host, range(self.count))):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    @property
    def _switch(self) -> str:
        return f"{self._name}-switch"

    def _host(self, rank: int) -> str:
        return f"{self._name}-{rank}"

    def _lay(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        for rank in range(self.count):
            host, port = self._host(rank), f"port{rank}"
            _ip("netns", "add", host)
            _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("-n", self._switch, "link", "set", port, "master", "bridge")
            _ip("-n", host, "address", "add", f"{self.address(rank)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", host, "link", "set", link, "up")
            self.plug(rank, is_in=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
