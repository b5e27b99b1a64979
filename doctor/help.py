"""What `--help` prints: written for the person who needs it, not generated from the parameters."""

from __future__ import annotations

TOP = """\
doctor - what is wrong with this Docker host, why, and what to do

  doctor check                     the whole host, or a bundle
  doctor why web1 | :8080 | IMAGE  only what concerns this one
  doctor trace FROM TO[:PORT]      what would happen to one packet, and why
  doctor reach                     who reaches whom, and what denies it
  doctor rules                     the firewall rules Docker would write here
  doctor layers verify             are images on disk what was pulled?
  doctor explain CODE | "ERROR"    the page of a code, offline
Take it elsewhere
  doctor collect -o F.tar.gz       evidence, redacted, in one file
Practise
  doctor lab                       broken hosts to learn on, no Docker needed
  doctor runtime                   containers of our own, words as docker's

Nothing here changes the host; what runs does so in namespaces of its own.
Exit: 0 clean, 1 found, 2 usage, 3 incomplete, 4 a fault of doctor itself
"""

CHECK = """\
Usage: doctor check [BUNDLE|-]            default: this host, read only
What to look at   --only X  --skip X      codes, areas, names, NET020..NET026
                  --deep                  also hash layers; minutes
What to try       --probe                 also ask each nameserver (sends)
                  --sample 5s             read counters twice, show what moves
What to accept    --ignore CODE[:SUBJECT]=REASON[,until=DATE]
                  --fail-on error|warning|info            default error
Output            --format text|short|json|html           default text
                  -o FILE                 again for more; format from the suffix
                  -v  notes, all evidence, what passed    -q  last line only
                  --color auto|always|never
Limits            --deadline 10s          whole run; --deep has none
Without Docker    --example NAME          list: --example list
"""

COLLECT = """\
Usage: doctor collect -o FILE.tar.gz      evidence of this host, redacted
                  -o FILE                 mode 0600; - is standard output
What to try       --probe                 also ask each nameserver (sends)
                  --sample 5s             read counters twice, show what moves
                  --deep                  also hash layers; minutes
Limits            --deadline 10s          whole run; --deep has none
Secrets are removed before anything is written; what was removed is said.
"""

RULES = """\
Usage: doctor rules [BUNDLE|-]            as input of iptables-restore --noflush
Which             --expected              all that Docker would write (default)
                  --missing               only those that are gone; exit 1: some
                  --extra                 takes away what is too much; exit 1
                  --ipv6                  those of ip6tables
Limits            --deadline 10s          whole run
Without Docker    --example NAME          list: doctor check --example list
It changes nothing. What a flush took away, put back without a restart:
  doctor rules --missing | iptables-restore --noflush
"""

REACH = """\
Usage: doctor reach [FROM] [--to X]       who reaches whom, and what denies it
FROM              a container, host, or outside: its row     default: all rows
                  --to X                  a container or outside: its column
Evidence          --bundle FILE           default: this host, read only
Output            --format text|json|html -v  every exception
Limits            --deadline 10s          whole run
Without Docker    --example NAME          list: doctor check --example list
Nothing is sent: it is what the kernel would do. One cell in full:
  doctor trace FROM X:PORT
Exit: 0, 1 what Docker promises is broken, 3 depends, or could not be read
"""

LAYERS = """\
Usage: doctor layers list                 each layer, its size, who stands on it
       doctor layers verify [WHAT...]     are they what was pulled or built
       doctor layers explain LAYER        one layer, and where it lies
WHAT              an image, a container, or an archive (docker save, OCI)
                  --deep                  every byte; without it, structure only
Proof and cure    --from ARCHIVE          put files back from it; proves it first
Pace              --jobs N                side by side      default: each core
                  --budget 30s            a sample; the share covered is stated
                  --seed WORD             which sample           default: the day
                  --resume FILE           keep what is done, go on from there
                  --full-speed            not at low priority
Evidence          --bundle FILE           default: this host, read only
Output            --format text|json      -v  every file, notes
                  --color auto|always|never
Limits            --deadline 10s          what is read beside content
Without Docker    --example NAME          list: doctor check --example list
Nothing is changed. What is written while it is read is unknown, never damage.
Exit: 0 whole, 1 damaged, 3 something could not be read
"""

TRACE = """\
Usage: doctor trace FROM TO[:PORT][/udp]  what would happen to one packet
FROM              a container, host, outside, or an address
TO                a container, host, or an address; without a port: a ping
  doctor trace web db:5432                from one container to another one
  doctor trace outside host:8080          to a published port
Evidence          --bundle FILE           default: this host, read only
                  --probe                 try it as well: one SYN or datagram
Output            --format text|json      -v  the whole way back
Limits            --deadline 10s          whole run
Without Docker    --example NAME          list: doctor check --example list
Without --probe nothing is sent: it is what the kernel would do.
Exit: 0 works, 1 does not, 3 depends on what a snapshot does not tell
"""

WHY = """\
Usage: doctor why SUBJECT                 what is wrong with this one thing
SUBJECT           a container (name, id, Compose service), a Compose project,
                  :PORT of the host (:53/udp), a network, an image
  doctor why web                          does it run, is it reached, by whom
  doctor why :8080                        what a client of that port meets
  doctor why network:shop                 where a name is more than one thing
Evidence          --bundle FILE           default: this host, read only
Output            --format text|json      -v  all that was asked, warnings whole
                  --color auto|always|never
Limits            --deadline 10s          whole run
Without Docker    --example NAME          list: doctor check --example list
Exit: 0 nothing wrong with it, 1 a cause, 3 something could not be known
"""

LAB = """\
Usage: doctor lab WORD                    broken hosts to learn on
  doctor lab list [AREA]                  which there are
  doctor lab run NAME                     break one, and leave a shell in it
                  --dialect 26            rules as that release writes them
  doctor lab enter NAME                   one more shell in a lab that is up
  doctor lab hint|check|solve NAME        its words, from another terminal
Proofs
  doctor lab replay NAME...|--all         break, find, heal; exit 1: not proved
                  --dialect D|one|all     default: all of NAME; with --all one each
                  --keep                  a lab that failed stays up
                  --jobs N                side by side; default: three a processor
  doctor lab lint [FILE...]               what is wrong with scenario files
  doctor lab new NAME                     a file to begin with
A lab lives in namespaces of its own, and is gone with the shell: this machine
stays as it is. It is no sandbox for hostile code.
"""

EXPLAIN = """\
Usage: doctor explain [CODE|NAME|AREA|"ERROR"|-]    default: all codes by area
  doctor explain NET034                   one page
  doctor explain forwarding-off           the same, by name
  doctor explain NET                      one area
  doctor explain "port is already allocated"
                                          the codes that an error message means
  journalctl | tail | doctor explain -
                                          the same, of lines of a log
Exit: 0, or 2 when nothing is known of it
"""

RUNTIME = """\
Usage: doctor runtime up [FILE]           a host of our own, with a daemon
                  FILE                    the daemon.json of its daemon
                  --dialect 20.10|26|28|29|29-nftables     default 28
                  --limits                containers may have some (root only)
       doctor runtime enter [COMMAND]     a shell in it
                  --outside               on the machine beside it
       doctor runtime down [NAME]         it is gone, and all that ran in it
Words as docker's run exec ps logs stop rm network port inspect images ...
  doctor runtime run -d --name web -p 8080:80 busybox httpd -f
  doctor runtime run -it --rm busybox sh
Which host        --host NAME             right after `runtime`; with one up: that
It lives in namespaces of its own; nothing of this machine is changed, and
nothing is left of it. It needs no root where the kernel lets users have
namespaces. It is made to learn and to test: no sandbox for hostile code.
Exit: that of the command; 2 when it could not be done
"""

_PAGES = {
    "check": CHECK,
    "collect": COLLECT,
    "explain": EXPLAIN,
    "lab": LAB,
    "layers": LAYERS,
    "reach": REACH,
    "rules": RULES,
    "runtime": RUNTIME,
    "trace": TRACE,
    "why": WHY,
}


def wanted(arguments: list[str]) -> str:
    """Give the page that these arguments ask for, empty when they ask for none."""
    if not arguments or arguments[0] in {"--help", "-h", "help"}:
        return _PAGES.get(arguments[1], TOP) if len(arguments) > 1 else TOP
    if arguments == ["lab"]:
        return LAB
    words = arguments[1:]
    if arguments[0] == "runtime":  # what stands further behind is for the program in a container
        words = words[: 2 if words[:1] in (["up"], ["down"], ["enter"]) else 1]
    if arguments[0] in _PAGES and any(word in {"--help", "-h"} for word in words):
        return _PAGES[arguments[0]]
    return ""
