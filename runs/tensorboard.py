"""TensorBoard's files in a run's folder."""

from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from runs.folders import RESULT_LOGS

# TensorBoard's first page sorts by name and opens two groups: these curves, then "images".
PAGE_NAMES = {
    "train_bpd_step": "bpd/train",
    "val_bpd": "bpd/val",
    "val_prior_bpd": "bpd/val_prior",
    "train_reconstruction_loss_step": "nats/train_reconstruction",
    "val_reconstruction_loss": "nats/val_reconstruction",
    "train_regularization_loss_step": "nats/train_KL",
    "val_regularization_loss": "nats/val_KL",
}
FIRST_OPTIONS = ("z_dim", "seed")  # on the page "HParams", which sorts the others by name
CHARTS = {
    "bpd: training and validation": ["bpd/train", "bpd/val$"],
    "bpd of validation: unit Gaussian and learned prior": ["bpd/val$", "bpd/val_prior"],
    "reconstruction, nats per image": ["nats/train_reconstruction", "nats/val_reconstruction"],
    "KL to N(0, I), nats per image": ["nats/train_KL", "nats/val_KL"],
    "learning rate": ["lr-"],
}


class RunTensorBoard(TensorBoardLogger):
    """TensorBoard's files in a run's folder, with pages that open on the bits per dimension.

    What is logged keeps its name; but what is logged within an epoch (`*_step`) stands in the
    groups bpd and nats, next to copies of the validation's curves, and the number of the epoch is
    left out. The page "Custom Scalars" has training and validation in one chart.

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
        first = {PAGE_NAMES[name]: value for name, value in metrics.items() if name in PAGE_NAMES}
        others = {name: v for name, v in metrics.items() if not name.endswith(("_step", "epoch"))}
        new = {k: v for k, v in (first | others).items() if self.last_steps.get(k, -1) != step}
        self.last_steps |= dict.fromkeys(new, step)
        super().log_metrics(new, step)

    @rank_zero_only
    def log_result(self, options: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        """A line of the page "HParams", which shows first what is said to differ between runs."""
        self.log_metrics(metrics)
        experiment, *session = hparams(dict(options), dict(metrics))
        plugin = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in FIRST_OPTIONS
        plugin.content = content.SerializeToString()
        for part in (experiment, *session):
            self.experiment.file_writer.add_summary(part, self.result_step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keeps the file open between Lightning's fit and test, which both end with this."""
        if status == "success":
            self.save()
        else:
            super().finalize(status)
