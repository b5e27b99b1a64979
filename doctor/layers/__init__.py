"""What is on disk of each layer, against what was recorded of it when it was pulled or built.

Each store has a module: it plans (`Work`, one layer each), and in a process of its own it verifies one layer at a time,
telling what differs as it goes (`Teller`). What was found is evidence like any other: lines of a record
`layers/STORE`, which `doctor.facts.layer_content` reads and the checks of layers judge. `model` has the values.
"""
