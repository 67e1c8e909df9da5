"""Send opero's metrics, traces and logs to the tools that a program already uses.

| module | sends to | needs |
|---|---|---|
| `opentelemetry` | traces and metrics of OpenTelemetry | opentelemetry-api |
| `prometheus` | a registry of prometheus_client | prometheus_client |
| `structlog` | structlog's loggers | structlog |

Each has one function, `instrument`, which switches it on, and returns a function that switches it
off. Only `instrument` imports the library. `measures` defines the metrics that OpenTelemetry and
Prometheus share.

    calls, hits, attempts --> stats() --.
                                        +--> Measures.read() --> a scrape, an export
    retries, outages, ... --> events ---'
"""
