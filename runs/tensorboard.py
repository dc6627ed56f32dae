"""TensorBoard's files in a run's folder."""

from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from runs.folders import RESULT_LOGS

# TensorBoard's first page sorts by name and opens two groups: these curves, then "images".
FIRST_PAGE = {
    "train_bpd_step": "bpd/train",
    "val_bpd": "bpd/val",
    "val_prior_bpd": "bpd/val_prior",
}
NOT_ON_PAGES = {"epoch", "train_bpd_step"}
CHARTS = {
    "bpd: training and validation": ["bpd/train", "bpd/val$"],
    "val_bpd: unit Gaussian and learned prior": ["bpd/val$", "bpd/val_prior"],
    "reconstruction_loss: nats per image": ["(train|val)_reconstruction_loss"],
    "regularization_loss: KL to N(0, I), nats": ["(train|val)_regularization_loss"],
    "ELBO: negative, the sum of both, nats": ["(train|val)_ELBO"],
    "learning rate": ["lr-"],
}


class RunTensorBoard(TensorBoardLogger):
    """TensorBoard's files in a run's folder, with pages that open on the bits per dimension.

    What is logged keeps its name, but for two: `train_bpd_step` becomes `bpd/train`, next to copies
    of the validation's curves, and the number of the epoch is left out. The page "Custom Scalars"
    has training and validation in one chart.

    Args:
        folder: of the run.
        purge_step: TensorBoard drops what earlier files say of this step and later ones.
    """

    def __init__(self, folder: Path, purge_step: int | None = None):
        super().__init__(
            str(folder.parent),
            name=None,
            version=folder.name,
            default_hp_metric=False,
            purge_step=purge_step,
        )
        self.last_steps: dict[str, int | None] = {}
        self.result_step: int | None = None
        charts = {title: ["Multiline", tags] for title, tags in CHARTS.items()}
        self.experiment.add_custom_scalars({"Training": charts})

    def begin_results(self, step: int) -> None:
        """From here on a file of its own, which can be removed when the run is trained further.

        Args:
            step: where to log all of it: Lightning logs a test one step after the last epoch, which
                `purge_step` would drop while the result still stands.
        """
        self.result_step = step
        self.experiment.close()
        self.experiment.filename_suffix = RESULT_LOGS

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As Lightning's, each metric once per step."""
        step = step if self.result_step is None else self.result_step
        first = {FIRST_PAGE[name]: value for name, value in metrics.items() if name in FIRST_PAGE}
        others = {name: value for name, value in metrics.items() if name not in NOT_ON_PAGES}
        new = {k: v for k, v in (first | others).items() if self.last_steps.get(k, -1) != step}
        self.last_steps |= dict.fromkeys(new, step)
        super().log_metrics(new, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keeps the file open between Lightning's fit and test, which both end with this."""
        if status == "success":
            self.save()
        else:
            super().finalize(status)
