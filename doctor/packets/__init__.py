"""The path of a packet: what the kernel would do with one, from a snapshot alone, there and back.

`conditions` and `program` are netfilter as data, `iptables` and `nft` compile what the savers print into it, `evaluate`
runs a packet through the chains of a hook, `site` is the host with its namespaces, links and bridges. `stack` is what the
kernel does with a packet there, `walk` leads a flow through it and back, `asked` reads what a person asks for.
Nothing here reads the host. `docs/packet-path.md` says what is modelled and what not.
"""
