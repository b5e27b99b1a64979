"""The command line of a lab's docker: flags, bodies, templates, tables, as the real one has them."""

from __future__ import annotations

from typing import Any

import pytest

from doctor.runtime.daemon import spec as spelling
from doctor.runtime.daemon.cli import asked
from doctor.runtime.daemon.cli.flags import Flags, UsageError
from doctor.runtime.daemon.cli.tables import CONTAINERS, NETWORKS, table
from doctor.runtime.daemon.cli.template import render
from doctor.runtime.model import Attachment, Bind, Publish


def _spec(*words: str) -> Any:
    flags, rest = asked.RUN.parse(list(words))
    return spelling.parse(asked.body(flags, rest[0], rest[1:], attached=not flags["detach"]), flags["name"] or "")


def test_run_is_read_as_docker_reads_it() -> None:
    """Short flags with and without a space, several in one word, and the command's own flags behind the image."""
    found = _spec("-dit", "--name=web", "-p8080:80", "-p", "127.0.0.1::53/udp", "-e", "A=b", "-v", "vol:/data:ro",
                  "--network", "app", "--network-alias", "w", "--ip", "10.7.0.9", "--restart", "on-failure:3",
                  "-m", "100m", "busybox", "sh", "-c", "exit 3")  # fmt: skip
    assert found.name == "web"
    assert found.command == ("sh", "-c", "exit 3")
    assert found.publish == (Publish(80, host_port=8080), Publish(53, "udp", 0, "127.0.0.1"))
    assert found.networks == (Attachment("app", "10.7.0.9", aliases=("w",)),)
    assert found.mounts == (Bind("volume", "vol", "/data", readonly=True, options="ro"),)
    assert found.restart == "on-failure:3"
    assert found.limits.memory == 100 << 20
    assert (found.tty, found.interactive, found.attached) == (True, True, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nope", "x"], "unknown flag: --nope"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["-p", "x", "busybox"], "Invalid containerPort: x"),
        (["--restart", "often", "busybox"], "invalid restart policy: unknown policy 'often'"),
        (["--rm", "--restart", "always", "busybox"], "conflicting options: cannot specify both --restart and --rm"),
        (["-m", "much", "busybox"], "invalid size: 'much'"),
    ],
)
def test_mistakes_have_dockers_words(words: list[str], said: str) -> None:
    """And none is taken for something else."""
    with pytest.raises(UsageError, match=said.replace("'", "'")):
        _spec(*words)


def test_flags_end_where_the_command_begins() -> None:
    """For commands that hand words on; others take flags anywhere."""
    assert Flags("all,a").parse(["x", "-a"]) == ({"help": None, "all": True}, ["x"])
    assert Flags("all,a", mixed=False).parse(["x", "-a"]) == ({"help": None, "all": None}, ["x", "-a"])
    assert Flags("all,a").parse(["--", "-a"])[1] == ["-a"]
    assert Flags("all,a").parse(["--all=false"])[0]["all"] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{.State.Status}}", "running"),
        ("{{json .Ports}}", '{"80/tcp":[{"HostPort":"8080"}]}'),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', None),
        ("{{range $k, $v := .Networks}}{{$k}}={{$v.IP}} {{end}}", "app=10.7.0.2 db=10.8.0.2 "),
        ("{{range .List}}<{{.}}>{{else}}none{{end}}", "<1><2>"),
        ("{{if .Empty}}yes{{else}}no{{end}}", "no"),
        ("{{len .List}} {{.List}} {{.Nothing}}", "2 [1 2] <no value>"),
        ("{{ .State.Status | upper }}", "RUNNING"),
    ],
)
def test_templates(text: str, said: str | None) -> None:
    """The part of Go's templates that people type; what is not of it is refused."""
    value = {
        "State": {"Status": "running"},
        "Ports": {"80/tcp": [{"HostPort": "8080"}]},
        "Networks": {"db": {"IP": "10.8.0.2"}, "app": {"IP": "10.7.0.2"}},
        "List": [1, 2],
        "Empty": [],
        "Nothing": None,
    }
    if said is None:
        with pytest.raises(UsageError):
            render(text, value)
    else:
        assert render(text, value) == said


@pytest.mark.parametrize("text", ["{{.Nope}}", "{{range .List}}", "{{end}}", "{{$x}}", "{{nope .}}"])
def test_wrong_templates_are_usage(text: str) -> None:
    """Never a traceback."""
    with pytest.raises(UsageError):
        render(text, {"List": []})


def test_tables_are_dockers() -> None:
    """Columns are ten characters wide at least, three spaces apart; the last one has no spaces behind it."""
    rows = [{"ID": "3aa17de4c89e", "Name": "app", "Driver": "bridge", "Scope": "local"}]
    assert (
        table(rows, NETWORKS) == "NETWORK ID     NAME      DRIVER    SCOPE\n3aa17de4c89e   app       bridge    local\n"
    )
    assert table(rows, NETWORKS, quiet="ID") == "3aa17de4c89e\n"
    assert table(rows, NETWORKS, "{{.Name}}\\t{{.Driver}}") == "app\tbridge\n"
    assert table([], CONTAINERS).startswith("CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n")
