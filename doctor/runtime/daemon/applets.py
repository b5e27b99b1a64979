"""Programs of the built-in image where a machine has no busybox: what a shell and its friends do not have, in Python.

This file is put into the image as it is, and runs there alone: it knows nothing of doctor, and imports little, since each of
its programs is an interpreter that starts. It is named by how it is called, and takes what busybox takes of the words that
labs, documents and people use most.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time

NAMES = ("httpd", "nc", "nslookup", "ping", "wget")
_CHUNK = 1 << 16


class _WordsError(Exception):
    """Words that a program does not take."""


def main() -> int:
    """Be the program that this is called as; gives its exit code."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 - pathlib would take longer than all else
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        return {"httpd": httpd, "nc": nc, "nslookup": nslookup, "ping": ping, "wget": wget}[name](sys.argv[1:])
    except _WordsError as error:
        return _fail(f"{name}: {error}")
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _fail(f"{name}: {error.strerror or error}")


def _fail(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


def options(words: list[str], flags: str, valued: str) -> tuple[dict[str, str], list[str]]:
    """Read options of one letter, those of `valued` with a value; gives them, and the other words. Raises _WordsError."""
    held: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if len(word) < 2 or word[0] != "-":  # noqa: PLR2004 - a dash and a letter
            rest.append(word)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in flags:
                held[letter] = held.get(letter, "") + letter
            elif letter in valued and (letters or waiting):
                held[letter] = letters or waiting.pop(0)
                letters = ""
                if letter == "e":  # the program of nc, and all its words
                    held[letter] = "\0".join([held[letter], *waiting])
                    waiting = []
            else:
                raise _WordsError(f"invalid option -- '{letter}'")
    return held, rest


def _number(text: str) -> int:
    if not text.isdecimal():
        raise _WordsError(f"invalid number '{text}'")
    return int(text)


# httpd


def httpd(words: list[str]) -> int:
    """Serve the files of a folder, and programs in its cgi-bin: `-f -p [ADDRESS:]PORT -h FOLDER`."""
    held, _ = options(words, "fiv", "phcru")
    address, _, port = held.get("p", "80").rpartition(":")
    family = socket.AF_INET if address and ":" not in address else socket.AF_INET6
    try:
        listener = socket.create_server(
            (address.strip("[]"), _number(port)), family=family, dualstack_ipv6=family == socket.AF_INET6
        )
    except OSError as error:
        return _fail(f"httpd: bind: {error.strerror}")
    os.chdir(held.get("h", "."))
    if "f" not in held and os.fork():
        return 0
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, peer = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve(client, peer[0].removeprefix("::ffff:"))
            os._exit(0)
        client.close()


def _serve(client: socket.socket, peer: str) -> None:
    client.settimeout(60)
    asked = b""
    while b"\r\n\r\n" not in asked and b"\n\n" not in asked:
        data = client.recv(_CHUNK)
        if not data or len(asked) > _CHUNK:
            return
        asked += data
    verb, _, rest = asked.partition(b"\n")[0].decode("latin-1").strip().partition(" ")
    path, _, query = rest.partition(" ")[0].partition("?")
    inside = os.path.normpath("/" + path).lstrip("/") or "index.html"
    if verb not in {"GET", "HEAD", "POST"}:
        client.sendall(b"HTTP/1.1 501 Not Implemented\r\nConnection: close\r\n\r\n")
    elif inside.startswith("cgi-bin/") and os.access(inside, os.X_OK):
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        env = {**os.environ, "REMOTE_ADDR": peer, "REQUEST_METHOD": verb, "QUERY_STRING": query}
        client.setblocking(True)  # noqa: FBT003 - its name
        os.dup2(client.fileno(), 1)
        os.execve(inside, [inside], env)  # noqa: S606 - that is what cgi-bin is for
    elif os.path.isdir(inside) and os.path.isfile(f"{inside}/index.html"):  # noqa: PTH112, PTH113 - as above
        _send(client, f"{inside}/index.html")
    elif os.path.isfile(inside):  # noqa: PTH113 - as above
        _send(client, inside)
    else:
        client.sendall(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n404 Not Found\n")


def _send(client: socket.socket, path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        size = os.fstat(file.fileno()).st_size
        client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode())
        client.sendfile(file)


# nc


def nc(words: list[str]) -> int:
    """Connect, `[-u] [-w SECONDS] HOST PORT`, or listen, `-l[l] [-u] -p PORT [-e PROGRAM...]`."""
    held, rest = options(words, "lunvk46", "pwse")
    kind = socket.SOCK_DGRAM if "u" in held else socket.SOCK_STREAM
    program = held["e"].split("\0") if "e" in held else []
    if "l" in held:
        return _listen(_number(held.get("p") or (rest[-1] if rest else "")), kind, program, again=len(held["l"]) > 1)
    if len(rest) != 2:  # noqa: PLR2004 - host and port
        raise _WordsError("HOST PORT")
    try:
        # Of a text the codec idna would be made use of, which is a megabyte.
        place = socket.getaddrinfo(rest[0].encode(), _number(rest[1]), type=kind)[0]
        sock = socket.socket(place[0], kind)
        sock.settimeout(float(held["w"]) if "w" in held else None)
        sock.connect(place[4])
    except OSError as error:
        return _fail(f"nc: {rest[0]} ({rest[1]}): {error.strerror or error}")
    if program:
        _become(sock, program)
    return _carry(sock, float(held["w"]) if "w" in held else None)


def _listen(port: int, kind: int, program: list[str], *, again: bool) -> int:
    listener = socket.socket(socket.AF_INET6, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        listener.bind(("::", port))
    except OSError as error:
        return _fail(f"nc: bind: {error.strerror}")
    if kind == socket.SOCK_DGRAM:
        _, peer = listener.recvfrom(_CHUNK, socket.MSG_PEEK)
        listener.connect(peer)
        if program:
            _become(listener, program)
        return _carry(listener, None)
    listener.listen(128)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listener.accept()
        if not again:
            listener.close()
            return _become(client, program) if program else _carry(client, None)
        if os.fork() == 0:
            listener.close()
            os._exit(_become(client, program) if program else _carry(client, None))
        client.close()


def _become(sock: socket.socket, program: list[str]) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (0, 1):
        os.dup2(sock.fileno(), number)
    os.execvp(program[0], program)  # noqa: S606 - that is what -e is for


def _carry(sock: socket.socket, seconds: float | None) -> int:
    """Carry bytes between a socket and the standard streams, until the other side ends or nothing comes for so long."""
    sock.settimeout(None)
    listened: list[int] = [0, sock.fileno()]
    while True:
        ready = select.select(listened, [], [], seconds)[0]
        if not ready:
            return 1
        if 0 in ready:
            data = os.read(0, _CHUNK)
            if data:
                sock.sendall(data)
            else:
                listened.remove(0)
                if sock.type == socket.SOCK_STREAM:
                    sock.shutdown(socket.SHUT_WR)
        if sock.fileno() in ready:
            data = sock.recv(_CHUNK)
            if not data:
                return 0
            os.write(1, data)


# wget


def wget(words: list[str]) -> int:
    """Fetch a page by HTTP: `[-q] [-O FILE] [-T SECONDS] [-S] [--spider] URL`."""
    spider = "--spider" in words
    held, rest = options([word for word in words if word != "--spider"], "qScn", "OTtUP")
    if not rest:
        raise _WordsError("missing URL")
    host, _, path = rest[0].removeprefix("http://").partition("/")
    name, _, port = host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "80")
    seconds = float(held.get("T") or 900)
    try:
        with socket.create_connection((name.strip("[]").encode(), _number(port)), timeout=seconds) as sock:  # type: ignore[arg-type]  # as in nc
            sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while chunk := sock.recv(_CHUNK):
                data += chunk
    except socket.gaierror:
        return _fail(f"wget: bad address '{host}'")
    except TimeoutError:
        return _fail("wget: download timed out")
    except OSError as error:
        return _fail(f"wget: can't connect to remote host ({name}): {error.strerror}")
    head, _, body = data.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if status.split(" ")[1:2] != ["200"]:
        return _fail(f"wget: server returned error: {status}" if status else "wget: error getting response")
    if not spider:
        _keep(held.get("O") or os.path.basename(path) or "index.html", body)  # noqa: PTH119 - as above
    return 0


def _keep(path: str, body: bytes) -> None:
    if path == "-":
        sys.stdout.buffer.write(body)
        sys.stdout.flush()
        return
    with open(path, "wb") as file:  # noqa: PTH123 - as above
        file.write(body)


# nslookup


def nslookup(words: list[str]) -> int:
    """Ask a nameserver, that of /etc/resolv.conf by default, for the addresses of a name, or the name of an address."""
    _, rest = options(words, "", "")
    if not rest:
        raise _WordsError("HOST [SERVER]")
    server = rest[1] if len(rest) > 1 else _servers()[0]
    sys.stdout.write(f"Server:\t\t{server}\nAddress:\t{server}:53\n\n")
    found = []
    for kind in (12,) if rest[0].replace(".", "").isdecimal() else (1, 28):
        try:
            code, answers = _asked(server, rest[0], kind)
        except OSError:
            sys.stdout.write(";; connection timed out; no servers could be reached\n\n")
            return 1
        if code:
            words_of = {2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
            sys.stdout.write(f"** server can't find {rest[0]}: {words_of.get(code, code)}\n\n")
            return 1
        found += answers
    for answer in found:
        sys.stdout.write(f"Name:\t{rest[0]}\nAddress: {answer}\n\n")
    return 0 if found else 1


def _servers() -> list[str]:
    try:
        with open("/etc/resolv.conf", encoding="utf-8") as file:  # noqa: PTH123 - as above
            held = [line.split()[1] for line in file if line.startswith("nameserver ")]
    except OSError:
        held = []
    return held or ["127.0.0.1"]


def _asked(server: str, name: str, kind: int) -> tuple[int, list[str]]:
    """Ask one question; gives the code of the answer, and what it has of this kind. Raises OSError."""
    asked = ".".join(reversed(name.split("."))) + ".in-addr.arpa" if kind == 12 else name  # noqa: PLR2004 - PTR
    labels = b"".join(bytes([len(one)]) + one.encode() for one in asked.rstrip(".").split("."))
    number = os.urandom(2)
    question = number + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((server, 53))
        sock.settimeout(5)
        for _ in range(2):
            sock.send(question)
            try:
                data = sock.recv(4096)
            except TimeoutError:
                continue
            return data[3] & 15, _answers(data, kind)
    raise TimeoutError


def _answers(data: bytes, kind: int) -> list[str]:
    at = 12
    _, at = _name(data, at)
    at += 4
    found = []
    for _ in range(struct.unpack_from("!H", data, 6)[0]):
        _, at = _name(data, at)
        its, _, _, size = struct.unpack_from("!2HIH", data, at)
        at += 10
        if its == kind:
            families = {1: socket.AF_INET, 28: socket.AF_INET6}
            text = socket.inet_ntop(families[kind], data[at : at + size]) if kind in families else _name(data, at)[0]
            found.append(text)
        at += size
    return found


def _name(data: bytes, at: int) -> tuple[str, int]:
    """Read a name of a message (RFC 1035, 4.1.4); gives it, and where it ends."""
    labels = []
    end = 0
    for _ in range(64):
        size = data[at]
        if size >= 192:  # noqa: PLR2004 - two bits that lead elsewhere
            end = end or at + 2
            at = (size & 63) << 8 | data[at + 1]
        elif size:
            labels.append(data[at + 1 : at + 1 + size].decode("latin-1"))
            at += 1 + size
        else:
            break
    return ".".join(labels), end or at + 1


# ping


def ping(words: list[str]) -> int:
    """Send echo requests: `[-q] [-c COUNT] [-w SECONDS] [-W SECONDS] HOST`."""
    held, rest = options(words, "q46n", "cwWisI")
    if not rest:
        raise _WordsError("HOST")
    try:
        place = socket.getaddrinfo(rest[0].encode(), None, socket.AF_INET)[0][4][0]
    except OSError:
        return _fail(f"ping: bad address '{rest[0]}'")
    count = _number(held.get("c", "0"))
    until = time.monotonic() + float(held["w"]) if "w" in held else float("inf")
    sys.stdout.write(f"PING {rest[0]} ({place}): 56 data bytes\n")
    sent = came = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        while (not count or sent < count) and time.monotonic() < until:
            took = _echo(sock, str(place), sent, min(float(held.get("W", 10)), until - time.monotonic()))
            if took is not None:
                came += 1
                if "q" not in held:
                    sys.stdout.write(f"64 bytes from {place}: seq={sent} time={took * 1000:.3f} ms\n")
                    sys.stdout.flush()
            sent += 1
            if took is not None and (not count or sent < count):
                time.sleep(1)
    lost = 100 * (sent - came) // sent if sent else 0
    sys.stdout.write(f"\n--- {rest[0]} ping statistics ---\n")
    sys.stdout.write(f"{sent} packets transmitted, {came} packets received, {lost}% packet loss\n")
    return 0 if came else 1


def _echo(sock: socket.socket, place: str, number: int, seconds: float) -> float | None:
    """Send one request, and wait for its answer; gives the seconds it took, None where none came."""
    own = os.getpid() & 0xFFFF
    body = struct.pack("!2H", own, number) + bytes(56)
    total = 0x0800 + sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    began = time.monotonic()
    try:
        sock.sendto(struct.pack("!2H", 0x0800, check) + body, (place, 0))
    except OSError as error:
        sys.stderr.write(f"ping: sendto: {error.strerror}\n")
        time.sleep(max(0.0, min(seconds, 1.0)))
        return None
    while (left := began + seconds - time.monotonic()) > 0:
        if not select.select([sock], [], [], left)[0]:
            break
        data = sock.recv(_CHUNK)
        answer = data[(data[0] & 15) * 4 :]
        if answer[:1] == b"\0" and struct.unpack_from("!2H", answer, 4) == (own, number):
            return time.monotonic() - began
    return None


if __name__ == "__main__":
    sys.exit(main())
