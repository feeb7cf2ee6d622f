"""python docs/draw_scaling.py: what share of ideal speed many hosts reach that train one model: an estimate on paper.

For each number of hosts it gives the least and the most of the ideal rate: where the one all-reduce of a step's float32
gradients comes after the step, and where it is hidden behind it. It takes the quicker of a ring, 2 (n - 1) / n × bytes
/ bandwidth + 2 (n - 1) × latency, and a tree, 2 × bytes / bandwidth + 2 log2(n) × latency (Thakur, Rabenseifner and
Gropp, 2005). Steps are measured or, as is said there, assumed; networks are assumed. Written into docs/scale.md.
"""

from dataclasses import dataclass
from math import log2
from pathlib import Path

HOSTS = (8, 64, 512)
PERIOD = 16  # steps between two averages of local SGD
PAGE = Path(__file__).parent / "scale.md"
BEGIN, END = "<!-- estimate: made by docs/draw_scaling.py -->\n", "<!-- end of estimate -->\n"


@dataclass(frozen=True)
class Host:
    """A model on one host: images a second and where that is from, parameters, examples of a batch."""

    name: str
    images_per_second: float
    source: str
    num_params: int
    batch_size: int

    @property
    def step_seconds(self) -> float:
        """How long one step takes without others."""
        return self.batch_size / self.images_per_second


@dataclass(frozen=True)
class Network:
    """Gigabits a second of which 80 % reach the arrays, and seconds that a message takes."""

    gigabits: int
    latency_seconds: float

    def all_reduce_seconds(self, num_bytes: float, hosts: int) -> float:
        """How long it takes until all hosts have the sum of as many bytes of each."""
        bandwidth = 0.8 * self.gigabits * 1e9 / 8
        ring = 2 * (hosts - 1) / hosts * num_bytes / bandwidth + 2 * (hosts - 1) * self.latency_seconds
        tree = 2 * num_bytes / bandwidth + 2 * log2(hosts) * self.latency_seconds
        return min(ring, tree)


MEASURED = "measured, docs/benchmarks.md"
MODELS = (
    Host("convnet, 2 CPU cores, batch 64", 17_903, MEASURED, 104_202, 64),
    Host("convnet, H100, float32, 512", 900_299, MEASURED, 104_202, 512),
    Host("MobileNet, 128 pixels, H100, bfloat16, 64", 19_525, MEASURED, 4_231_976, 64),
    Host("ResNet50, 224 pixels, H100, bfloat16, 128", 2_500, "assumed", 25_583_592, 128),
)
NETWORKS = (Network(25, 30e-6), Network(100, 15e-6), Network(400, 8e-6))


def share_of_ideal(host: Host, network: Network, hosts: int, steps: int = 1) -> tuple[float, float]:
    """(least, most) share of the rate of as many hosts without a network; steps: between two all-reduces."""
    step, exchange = steps * host.step_seconds, network.all_reduce_seconds(4 * host.num_params, hosts)
    return step / (step + exchange), step / max(step, exchange)


def make_table() -> str:
    """The table in Markdown; in brackets local SGD, with an average every PERIOD steps."""
    lines = [f"| a host | step, ms | Gb/s | {' | '.join(f'{count} hosts' for count in HOSTS)} |"]
    lines.append("| --- | ---: | ---: |" + " --- |" * len(HOSTS))
    for host in MODELS:
        mark = "" if host.source == MEASURED else f" ({host.source})"
        for network in NETWORKS:
            cells = []
            for count in HOSTS:
                (least, most), (local, _) = (share_of_ideal(host, network, count, steps) for steps in (1, PERIOD))
                cells.append(f"{least:.2f} to {most:.2f} ({local:.2f})")
            step = f"{1000 * host.step_seconds:.2f}{mark}"
            lines.append(f"| {host.name} | {step} | {network.gigabits} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{make_table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
