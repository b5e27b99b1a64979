"""Tests of the scrubbing; a package, so that its made-up host can be imported."""
