"""The path of a packet: what the kernel would do with one, from a snapshot alone, there and back.

`conditions` and `program` are netfilter as data, `iptables` and `nft` compile what the savers print into it, `evaluate`
runs a packet through the chains of a hook, `site` is the host with its namespaces, links and bridges, `walk` leads the
packet and its reply through it. Nothing here reads the host. `docs/packet-path.md` says what is modelled and what not.
"""
