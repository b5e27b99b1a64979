"""The daemon of the runtime: what a reader of a Docker host finds there, and what `docker` commands.

`serve.serve` is what the process does that bears the name dockerd. `config` reads what it was told, `engine` carries it out,
`api` answers on its socket, `store` and `state` keep its data root, `cli` is the command `docker`.
"""
