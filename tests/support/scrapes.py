"""What Prometheus would see of a broker."""

import urllib.error
import urllib.request

from broker_process import free_port
from prometheus_client.parser import text_string_to_metric_families


def with_metrics(*more: str) -> tuple[int, list[str]]:
    """A free port, and arguments that make a broker show its metrics there."""
    port = free_port()
    return port, ["--set", "endpoints=grpc,prometheus", "--set", f"endpoint.prometheus.listen=127.0.0.1:{port}", *more]


class Scraped:
    """One scrape, or anything else in the text format."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def all(self, name: str, **labels: object) -> list[float]:
        """The values of a metric where the labels are these; the prefix may be left out."""
        wanted = {key: str(value) for key, value in labels.items()}.items()
        names = (name, f"liftbridge_{name}")
        return [one.value for one in self._samples if one.name in names and wanted <= one.labels.items()]

    def __call__(self, name: str, **labels: object) -> float | None:
        """The one value; None where there is none."""
        found = self.all(name, **labels)
        assert len(found) <= 1, (name, labels, found)
        return found[0] if found else None


def fetch(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape(port: int) -> Scraped:
    """As of now, or of a second ago."""
    status, text = fetch(port, "/metrics")
    assert status == 200, text
    return Scraped(text)
