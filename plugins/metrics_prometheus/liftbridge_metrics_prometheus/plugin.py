"""The hooks of the metrics endpoint."""

from importlib.util import find_spec

from liftbridge.errors import ConfigError
from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import EndpointContext
from liftbridge.interfaces.endpoint import FOR_OPERATORS, Endpoint
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind

_LISTEN = "endpoint.prometheus.listen"
_SUMMARY = "metrics for Prometheus and health, over HTTP"
_REMEDY = "the distribution prometheus_client is missing: pip install prometheus_client"


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            _LISTEN,
            SettingKind.STRING,
            "127.0.0.1:9293",
            "Address to bind, as host:port, for GET /metrics, /healthz and /readyz; port 0 takes any free one. Whoever "
            "reaches it can read it. Only with endpoints = grpc, prometheus.",
            check=_problem_with_address,
        )
    ]


@hookimpl
def liftbridge_endpoint() -> Provider:
    summary = _SUMMARY if _is_usable() else f"NOT USABLE: {_REMEDY}"
    return Provider("prometheus", summary, _create, capabilities=frozenset({FOR_OPERATORS}))


def _is_usable() -> bool:
    """Looks, and imports nothing: that would stay in the memory of servers without metrics."""
    return find_spec("prometheus_client") is not None


def _create(context: EndpointContext) -> Endpoint:
    if not _is_usable():
        raise ConfigError(f'endpoints: "prometheus" can\'t be used, because {_REMEDY}')
    from liftbridge_metrics_prometheus.scraping import Scrapes
    from liftbridge_metrics_prometheus.server import PrometheusEndpoint

    host, port = split_address(context.settings[_LISTEN])
    return PrometheusEndpoint(Scrapes(context), host, port)


def split_address(address: str) -> tuple[str, int]:
    """Host and port; the host is "" for every address of the machine. Raises ValueError that says what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError("must be host:port, with a port from 0 to 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("must have brackets around an IPv6 address, as [::1]:9293")
    return host.strip("[]"), int(port)


def _problem_with_address(address: str) -> str | None:
    try:
        split_address(address)
    except ValueError as error:
        return str(error)
    return None
