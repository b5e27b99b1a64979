"""Labs: broken hosts to learn on, made from scenario files, and the proof that each shows what it says and can be healed."""

from __future__ import annotations
