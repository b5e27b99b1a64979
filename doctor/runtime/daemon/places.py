"""Where the daemon and what it starts keep what is gone with the next boot."""

from __future__ import annotations

TASKS = "/run/containerd/io.containerd.runtime.v2.task/moby"
"""What containerd knows of running containers: a folder for each."""

SOCKET = "/run/docker.sock"
