"""The checks: flat, one question a module. A new module is one more name in this tuple, which is sorted."""

from __future__ import annotations

MODULES = (
    "addressing",
    "bridges",
    "cgroups",
    "container_layers",
    "container_state",
    "daemon_config",
    "daemon_log",
    "daemon_options",
    "daemon_socket",
    "daemon_start",
    "disk",
    "dns",
    "docker_proxy",
    "engine_rules",
    "exposure",
    "file_rights",
    "image_database",
    "kernel",
    "kernel_log",
    "layerdb",
    "links",
    "overlaps",
    "overlay_links",
    "published_ports",
    "routes_mtu",
    "sandboxes",
    "shims",
    "veth",
)
