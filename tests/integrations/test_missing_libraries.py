"""Integrations without their libraries: the error says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.once
@pytest.mark.parametrize(
    ("integration", "library", "needs"),
    [
        ("opentelemetry", "opentelemetry", "opero's spans and metrics need OpenTelemetry's"),
        (
            "prometheus",
            "prometheus_client",
            "opero's metrics for Prometheus need prometheus_client",
        ),
        ("structlog", "structlog", "opero's entries for structlog need structlog"),
    ],
)
def test_a_missing_library_is_named(integration: str, library: str, needs: str) -> None:
    """With what to do."""
    code = (
        f"import sys; sys.modules['{library}'] = None\n"
        f"from opero.integrations import {integration}\n"
        f"try: {integration}.instrument()\n"
        "except ImportError as error: print(error.name, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{library} {needs}")
    assert f"pip install '{library}" in done.stdout
