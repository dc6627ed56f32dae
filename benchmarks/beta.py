"""Table and figure of docs/beta.md, of runs that differ in beta: see there for their commands.

python benchmarks/beta.py figures/beta.png beta_0.5/version_0 beta_1/version_0 ...
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fmnist import DATA_DIR, load, prepare
from pictures.figures import name_rows
from pictures.of_model import traversal_rows
from train_pl import VAE, load_model
from utils import kl_per_dimension

COLUMNS = {  # of result.json, with digits after the point
    "test_reconstruction_loss": ("reconstruction, nats", 1),
    "test_regularization_loss": ("KL, nats", 1),
    "test_active_units": ("active units of 32", 0),
    "test_bpd": ("-ELBO", 4),
    "test_importance_weighted_bpd": ("tighter, K = 4", 4),
    "test_prior_bpd": ("learned prior", 4),
    "test_importance_weighted_prior_bpd": ("tighter, K = 4", 4),
}
SHOWN, TRAVERSED = 7, 2  # test images; latent dimensions of each model


def table(results: list[dict]) -> str:
    """Markdown, a row per run, and the smallest number of each bound in bold."""
    names = ["beta", *(name for name, _ in COLUMNS.values())]
    lines = [names, ["---"] * len(names)]
    for result in results:
        cells = []
        for key, (_, digits) in COLUMNS.items():
            best = key.endswith("bpd") and result[key] == min(each[key] for each in results)
            cells.append(f"{'**' * best}{result[key]:.{digits}f}{'**' * best}")
        lines.append([f"{result['options']['beta']:g}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@torch.no_grad()
def pictures(model: VAE, imgs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Reconstructions of the first images, and what the most informative latents draw.

    The latents are moved from -3 to 3 in the posterior mean of the first image.

    Args:
        imgs: long [N, 1, 28, 28].
    """
    mean, log_std = model.encoder(imgs)
    most = kl_per_dimension(mean, log_std).mean(dim=0).argsort(descending=True)[:TRAVERSED]
    return model.reconstruct(imgs[:SHOWN]), traversal_rows(model.decoder, mean[0], most.tolist())


def rate_distortion(axes: Axes, results: list[dict]) -> None:
    """Reconstruction against KL: on a dotted line the ELBO is the same."""
    rate = np.array([result["test_regularization_loss"] for result in results])
    distortion = np.array([result["test_reconstruction_loss"] for result in results])
    axes.plot(rate, distortion, "o-", color="#bd1f01")
    for x, y, result in zip(rate, distortion, results, strict=True):
        words = f"β = {result['options']['beta']:g}\n{result['test_bpd']:.3f} bpd"
        axes.annotate(words, (x, y), xytext=(8, 4), textcoords="offset points", fontsize=9)
    axes.set(xlim=(0, 1.3 * rate.max()), ylim=(0.9 * distortion.min(), 1.08 * distortion.max()))
    ends = np.array(axes.get_xlim())
    for negative_elbo in np.arange(200, 700, 50):
        axes.plot(ends, negative_elbo - ends, ":", color="grey", lw=0.8, zorder=0)
    axes.set(xlabel="rate: KL, nats per image", ylabel="distortion: reconstruction, nats per image")
    axes.set_title("dotted: equal ELBO, 50 nats apart", fontsize=10)


def grid(axes: Axes, rows: list[Tensor], names: list[str], title: str) -> None:
    image = make_grid(torch.cat(rows), nrow=len(rows[0]), padding=2, pad_value=0.25)
    axes.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="antialiased")
    name_rows(axes, names)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=10)


def beta_figure(results: list[dict], models: list[VAE], imgs: Tensor) -> Figure:
    """Reconstructions and traversals per beta, and the rate-distortion plane."""
    betas = [f"β = {result['options']['beta']:g}" for result in results]
    found = [pictures(model, imgs) for model in models]
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.2, 1.2))
    rows = [imgs[:SHOWN] / 15, *(reconstructions for reconstructions, _ in found)]
    grid(left, rows, ["test", *betas], "reconstructions")
    names = [name for beta in betas for name in (beta, *[""] * (TRAVERSED - 1))]
    traversals = [row for _, rows in found for row in rows]
    grid(middle, traversals, names, "the two most informative latents, from -3 to 3")
    rate_distortion(right, results)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", help="PNG file to write")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    args = parser.parse_args()
    results = {run: json.loads((run / "result.json").read_text()) for run in args.runs}
    results = dict(sorted(results.items(), key=lambda of_run: of_run[1]["options"]["beta"]))
    prepare(DATA_DIR)
    imgs = load(DATA_DIR, train=False).images[:1000].long()
    figure = beta_figure([*results.values()], [load_model(run) for run in results], imgs)
    figure.savefig(args.figure, dpi=90)
    print(table([*results.values()]))


if __name__ == "__main__":
    main()
