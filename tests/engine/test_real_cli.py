"""Docker's own command line, of each release, works on the daemon of a lab: it reads, makes, enters and ends."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from doctor.runtime.daemon.generation import generation
from doctor.runtime_commands import bring_up
from tests.enginehost import SUITES, build_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doctor.runtime.host import Lab

DIALECTS = {"20.10": "20.10", "26.1": "26", "28.5": "28"}


def _command_line(root: Path, lab: Lab) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give what calls the docker of a Debian root, by its own loader and libraries, for the daemon of a lab."""
    loader = next(path for path in root.glob("usr/lib*/ld-linux*"))
    libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu"))
    argv = [str(loader), "--library-path", libraries, str(root / "usr/bin/docker")]
    env = {"PATH": os.environ["PATH"], "HOME": "/", "DOCKER_HOST": f"unix:///proc/{lab.pid}/root/run/docker.sock"}

    def docker(words: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*argv, *words.split(), *more], check=False, capture_output=True, text=True, timeout=30, env=env
        )

    return docker


def test_every_command_that_people_use(suite: str) -> None:
    """A container's life, from the first `docker version` to the last `docker rm`, and what is read in between."""
    dialect = DIALECTS[SUITES[suite]]
    with bring_up(f"cli{os.getpid()}", dialect, {}, detach=False) as lab:
        docker = _command_line(build_root(suite), lab)

        def out(words: str, *more: str, code: int = 0) -> str:
            done = docker(words, *more)
            assert done.returncode == code, (words, more, done)
            return done.stdout.strip()

        assert out("version --format {{.Server.Version}}") == generation(dialect).version
        assert SUITES[suite] in out("version --format {{.Client.Version}}")
        about = json.loads(out("info --format", "{{json .}}"))
        assert (about["Driver"], about["Containers"], about.get("ServerErrors") or []) == ("overlay2", 0, [])
        assert "Storage Driver: overlay2" in out("info")
        assert out("network create --subnet 10.7.0.0/24 app").isalnum()
        web = out("run -d --name web --network app -p 8080:80 -e COLOUR=red busybox serve")
        assert len(web) == 64
        assert out("run --rm --network app busybox wget -qO- http://web/") == "it works"
        assert out("run --name done busybox sh -c", "echo to out; echo to err >&2; exit 3", code=3) == "to out"
        assert docker("logs done").stderr == "to err\n"
        assert out("logs done") == "to out"
        assert out("run --rm -i busybox cat") == ""
        assert out("exec -w /tmp web sh -c", "echo $COLOUR in $PWD; exit 0") == "red in /tmp"
        assert docker("exec web sh -c", "exit 7").returncode == 7
        rows = out("ps -a --no-trunc --format {{.Names}}/{{.ID}}/{{.State}}/{{.Networks}}").splitlines()
        assert [row for row in rows if row.startswith("web/")] == [f"web/{web}/running/app"]
        assert "0.0.0.0:8080->80/tcp" in out("ps")
        assert [row.split("/")[0] for row in rows] == ["done", "web"]
        assert out("port web 80/tcp").splitlines()[0] == "0.0.0.0:8080"
        assert out("inspect -f {{.State.Status}}/{{.NetworkSettings.Networks.app.IPAddress}} web") == "running/10.7.0.2"
        assert json.loads(out("inspect done"))[0]["State"]["ExitCode"] == 3
        assert {"bridge", "host", "none", "app"} == {*out("network ls --format {{.Name}}").split()}
        members = json.loads(out("network inspect app"))[0]["Containers"]
        assert [one["Name"] for one in members.values()] == ["web"]
        assert "busybox:latest" in out("images --format {{.Repository}}:{{.Tag}}").split()
        out("tag busybox:lab shop/base:3")
        assert "shop/base:3" in out("images --format {{.Repository}}:{{.Tag}}").split()
        assert docker("tag busybox Not:ok").returncode == 1
        assert out("rmi shop/base:3") == "Untagged: shop/base:3"
        assert "shop/base:3" not in out("images --format {{.Repository}}:{{.Tag}}")
        assert "httpd" in out("top web")
        assert out("stop -t 5 web") == "web"
        assert out("inspect -f {{.State.ExitCode}} web") == "0"
        assert out("start web") == "web"
        assert docker("rm web").returncode == 1
        assert out("rm -f web done").split() == ["web", "done"]
        assert out("network rm app") == "app"
        assert out("ps -aq") == ""
        assert docker("inspect web").returncode == 1
