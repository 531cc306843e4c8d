"""Telemetry of other packages, which CausCell turns off unless a user asks for it."""

from __future__ import annotations

TELEMETRY_VARIABLE = "ORT_DISABLE_TELEMETRY"
"""Environment variable of ONNX Runtime (from 1.29 on): 1 turns its telemetry off, 0 leaves it on."""
