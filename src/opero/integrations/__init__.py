"""opero in the dashboards, traces and logs that a program has already.

| module | what it gives to | needs |
|---|---|---|
| `opentelemetry` | traces and metrics of OpenTelemetry | opentelemetry-api |
| `prometheus` | a registry of prometheus_client | prometheus_client |
| `structlog` | structlog's loggers | structlog |

Each has one function, `instrument`, which switches it on and returns a function that ends it. The
libraries are imported then. `measures` has the metrics, which both kinds of metrics have in common.

    calls, hits, attempts --> stats() --.
                                        +--> Measures.read() --> a scrape, an export
    retries, outages, ... --> events ---'
"""
