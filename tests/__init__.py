"""The tests, and `tests.enginehost`: real Docker hosts for them."""
