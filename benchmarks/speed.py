"""What a run costs and where the time goes; every comparison alternates its two sides.

    python benchmarks/speed.py data        # our loader against the origin's pipeline
    python benchmarks/speed.py lightning   # train_pl.py against a bare PyTorch loop
    python benchmarks/speed.py startup     # from the command to the first step, and peak memory
    python benchmarks/speed.py cost        # seconds and memory against the sizes
    python benchmarks/speed.py origin      # seconds per epoch of the origin's recipe and of ours
    python benchmarks/speed.py step --against DIR  # a training step, against another checkout's
    python benchmarks/speed.py prior       # a step with the learned prior and without it
    python benchmarks/speed.py bound       # the importance-weighted bound against the plain decoder
    python benchmarks/speed.py processes   # images per second with one and with two processes
    python benchmarks/speed.py safety      # what checkpoints and checks cost

Figures are medians; ratios are taken pair by pair, as these machines' speed drifts.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from origin import OriginVAE, mean_bpd, origin_loaders  # noqa: E402

import fmnist  # noqa: E402
from inputs.checks import check_tensors  # noqa: E402
from judging.bounds import DECODER_BATCH  # noqa: E402
from judging.size import num_parameters  # noqa: E402
from muon import Muon  # noqa: E402
from runs.checkpoints import AtomicCheckpointIO  # noqa: E402
from runs.trainer import keep_freed_memory  # noqa: E402
from train_pl import VAE, make_parser, train_vae  # noqa: E402
from utils import (  # noqa: E402
    elbo_to_bpd,
    importance_weighted_bpd,
    reconstruction_loss,
    sampled_negative_elbo,
)

DEFAULTS = make_parser().parse_args([])


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(name_a: str, a: Callable[[], float], name_b: str, b: Callable[[], float], rounds: int):
    """Runs a and b in turn, each returning a figure, and prints medians and the ratio a / b."""
    pairs = []
    for _ in range(rounds):
        pairs.append((a(), b()))
        print(f"  {name_a} {pairs[-1][0]:.4g}   {name_b} {pairs[-1][1]:.4g}", flush=True)
    ratios = sorted(first / second for first, second in pairs)
    print(
        f"median {name_a} {median(p[0] for p in pairs):.4g}, {name_b} "
        f"{median(p[1] for p in pairs):.4g}; ratio {median(ratios):.3f} "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


def images_per_second(loader: DataLoader, batches: int) -> float:
    loaded = iter(loader)
    next(loaded)  # the start of worker processes is not counted
    start = time.perf_counter()
    count = sum(len(imgs) for imgs, _ in islice(loaded, batches))
    return count / (time.perf_counter() - start)


def apart(run: Callable[[], float]) -> float:
    """What `run` returns in a process of its own, whose memory and settings are its own.

    The caller must not have computed anything before: threads do not survive a fork.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writing, f"{run()}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading) as answer:
        found = answer.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the process that was to be measured failed")
    return float(found)


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of images and labels


def train(loss_of: Loss, optimizer: torch.optim.Optimizer, loader, steps: int) -> float:
    """A bare loop over `steps` batches; returns the share of its time spent waiting for data."""
    waited, start = 0.0, time.perf_counter()
    batches = iter(loader)
    for _ in range(steps):
        before = time.perf_counter()
        imgs, labels = next(batches)
        waited += time.perf_counter() - before
        loss = loss_of(imgs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return waited / (time.perf_counter() - start)


def ours(
    num_filters: int = DEFAULTS.num_filters, z_dim: int = DEFAULTS.z_dim
) -> tuple[VAE, Loss, torch.optim.Optimizer]:
    """The model, its loss with that of the prior, and its optimiser, with a run's own memory."""
    keep_freed_memory()
    model = VAE(num_filters, z_dim, DEFAULTS.lr)

    def loss(imgs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        L_rec, L_reg, z, *_ = model.elbo_terms(imgs)
        prior_loss = -model.prior.log_prob(z.detach(), labels)
        return elbo_to_bpd(L_rec + L_reg + prior_loss, imgs.shape).mean()

    return model, loss, model.make_optimizer()


def bench_data(rounds: int) -> None:
    print("Images per second of the training loader alone, batch size 128")
    mine, its = fmnist.mnist(batch_size=128)[0], origin_loaders()[0]
    compare(
        *("gathered", lambda: images_per_second(mine, len(mine) - 1)),
        *("origin, 2 workers", lambda: images_per_second(its, 100)),
        rounds,
    )
    loader = fmnist.mnist(batch_size=DEFAULTS.batch_size)[0]
    share = median(train(*ours()[1:], loader, 50) for _ in range(rounds))
    print(f"Share of a default training step spent waiting for data: {100 * share:.2f} %")


def bench_lightning(rounds: int) -> None:
    print("Seconds per epoch, training and validation, the default network and data")

    def lightning() -> float:
        with tempfile.TemporaryDirectory() as log_dir, redirect_stdout(StringIO()) as output:
            train_vae(argparse.Namespace(epochs=1, log_dir=log_dir))
        return float(re.search(r"([\d.]+) s   about", output.getvalue())[1])

    train_loader = fmnist.mnist(batch_size=DEFAULTS.batch_size)[0]
    val_loader = fmnist.mnist(batch_size=500)[1]

    def bare() -> float:
        model, loss, optimizer = ours()

        def both_bounds(imgs: torch.Tensor) -> torch.Tensor:
            L_rec, L_reg, z, mean, log_std = model.elbo_terms(imgs)
            log_pz = model.prior.log_prob(z)
            with_prior = sampled_negative_elbo(L_rec, z, mean, log_std, log_pz)
            both = torch.stack([L_rec + L_reg, with_prior])
            return elbo_to_bpd(both, imgs.shape).mean(dim=1).sum()

        def epoch() -> None:
            train(loss, optimizer, train_loader, len(train_loader))
            mean_bpd(both_bounds, val_loader)

        return seconds(epoch)

    compare("train_pl.py", lightning, "bare loop", bare, rounds)


def bench_origin(rounds: int, steps: int = 100) -> None:
    print(f"Seconds per epoch of 54,000 images, training only, from {steps} steps each")

    def origin() -> float:
        model = OriginVAE()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        loader = origin_loaders()[0]
        batches = iter(loader)
        next(batches)

        def loss(imgs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return model(imgs)

        return seconds(lambda: train(loss, optimizer, batches, steps)) / steps * len(loader)

    def default() -> float:
        _, loss, optimizer = ours()
        loader = fmnist.mnist(batch_size=DEFAULTS.batch_size)[0]
        return seconds(lambda: train(loss, optimizer, loader, steps)) / steps * len(loader)

    sides = ("origin's recipe", lambda: apart(origin)), ("ours", lambda: apart(default))
    compare(*sides[0], *sides[1], rounds)


def bench_prior(rounds: int, steps: int = 30) -> None:
    print(f"CPU seconds per epoch of 54,000 images, training only, from {steps} steps each")
    loader = fmnist.mnist(batch_size=DEFAULTS.batch_size)[0]

    def per_epoch(with_prior: bool) -> float:
        model, loss, optimizer = ours()
        if not with_prior:
            optimizer = Muon([*model.encoder.parameters(), *model.decoder.parameters()], lr=1e-3)
        loss = loss if with_prior else lambda imgs, labels: model(imgs)[2]
        train(loss, optimizer, loader, 10)
        start = time.process_time()
        train(loss, optimizer, loader, steps)
        return (time.process_time() - start) / steps * len(loader)

    sides = ("with the prior", lambda: per_epoch(True)), ("without", lambda: per_epoch(False))
    compare(*sides[0], *sides[1], rounds)


@torch.no_grad()
def bench_bound(rounds: int, num_samples: int = 64, batch_size: int = 100) -> None:
    print("Milliseconds per image and sample of z of the importance-weighted bound")
    model, *_ = ours()
    imgs = fmnist.load(train=False).images[:batch_size].long()
    mean, log_std = model.encoder(imgs)
    # The bound decodes as many latents at a time as evaluate.py gives it.
    parts = torch.randn(num_samples, *mean.shape).split(DECODER_BATCH // batch_size)
    inputs = [((mean + part).flatten(0, 1), imgs.repeat(len(part), 1, 1, 1)) for part in parts]

    def plain() -> None:
        for z, repeated in inputs:
            reconstruction_loss(model.decoder(z), repeated)

    def bound() -> None:
        importance_weighted_bpd(model.log_px, imgs, mean, log_std, parts)

    each = 1000 / (num_samples * batch_size)
    plain()
    sides = ("the bound", lambda: each * seconds(bound)), ("plain", lambda: each * seconds(plain))
    compare(*sides[0], *sides[1], rounds)


PROCESSES = """
import sys, time
sys.path.insert(0, {root!r})
import fmnist, train_pl
from pytorch_lightning.callbacks import Callback
from runs.stopping import StopIfNotFinite
from runs.trainer import keep_freed_memory
class Clock(Callback):
    WARM = 10
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.WARM:
            self.start = time.perf_counter()
        if batch_idx + 1 == self.WARM + {steps} and trainer.is_global_zero:
            seconds = time.perf_counter() - self.start
            print("images per second", {steps} * len(batch[1]) * trainer.world_size / seconds)
keep_freed_memory()
data = fmnist.MNISTDataModule(batch_size={batch_size})
trainer = train_pl.pl.Trainer(
    max_epochs=1, limit_train_batches=Clock.WARM + {steps}, limit_val_batches=0, logger=False,
    accelerator="cpu", devices={processes}, callbacks=[Clock(), StopIfNotFinite('val_bpd')],
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    use_distributed_sampler=False,
)
trainer.fit(train_pl.VAE(), datamodule=data)
"""


def bench_processes(rounds: int, steps: int = 60) -> None:
    print(f"Images per second of {steps} training steps of 64 images, one thread per process")

    def speed(processes: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "train.py")
            batch_size = 64 // processes
            script.write_text(
                PROCESSES.format(
                    root=str(ROOT), steps=steps, batch_size=batch_size, processes=processes
                )
            )
            said = subprocess.run(
                [sys.executable, str(script)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        return float(re.search(r"images per second ([\d.]+)", said)[1])

    compare("two processes", lambda: speed(2), "one process", lambda: speed(1), rounds)


def bench_safety(rounds: int, steps: int = 1000) -> None:
    model, train_loss, optimizer = ours()
    loader = fmnist.mnist(batch_size=DEFAULTS.batch_size)[0]
    imgs, labels = next(iter(loader))
    mean, log_std = model.encoder(imgs)
    z, loss, first = mean + log_std, mean.sum(), torch.tensor(torch.inf)

    def checks() -> None:
        device = model.decoder.device
        for _ in range(steps):
            long = {"dtype": torch.long, "device": device}
            check_tensors("imgs", ("B", 1, 28, 28), imgs, num_values=16, **long)
            check_tensors("z", ("B", model.hparams.z_dim), z, device=device)
            for _ in range(3):
                check_tensors("", ("...",), mean, log_std)
            check_tensors("labels", ("B",), labels, num_values=10, **long)
            # What StopIfNotFinite does:
            torch.minimum(first, torch.where(loss.isfinite(), torch.inf, 1.0)).item()

    step = [seconds(lambda: train(train_loss, optimizer, loader, 30)) / 30 for _ in range(rounds)]
    check = [seconds(checks) / steps for _ in range(rounds)]
    share = median(check) / median(step)
    print(
        f"checks {1e6 * median(check):.0f} us of a step of {1e3 * median(step):.1f} ms: {share:.2%}"
    )
    with tempfile.TemporaryDirectory() as folder:
        state = {"weights": model.state_dict(), "optimizer": optimizer.state_dict()}
        write = AtomicCheckpointIO().save_checkpoint
        save = [seconds(lambda: write(state, f"{folder}/last.ckpt")) for _ in range(rounds)]
        size = os.path.getsize(f"{folder}/last.ckpt") / 1e6
    epoch = median(step) * len(loader)
    print(
        f"a checkpoint of {size:.1f} MB {1e3 * median(save):.0f} ms of an epoch of {epoch:.0f} s: "
        f"{median(save) / epoch:.2%}"
    )


STEPS = """
import sys
sys.path.insert(0, "benchmarks")
from itertools import islice
from speed import DEFAULTS, fmnist, ours, seconds, train
_, loss, optimizer = ours()
batches = list(islice(fmnist.mnist(batch_size=DEFAULTS.batch_size)[0], {steps}))
for _ in sys.stdin:
    print(1e3 * seconds(lambda: train(loss, optimizer, batches, {steps})) / {steps}, flush=True)
"""


def bench_step(rounds: int, other: str, steps: int = 5) -> None:
    print(f"Milliseconds per training step in turns of {steps}, here and in {other}")
    code = [sys.executable, "-c", STEPS.format(steps=steps)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as open_processes:

        def steps_of(root: str | Path) -> Callable[[], float]:
            process = open_processes.enter_context(subprocess.Popen(code, cwd=root, **pipes))

            def measured() -> float:
                print("go", file=process.stdin, flush=True)
                return float(process.stdout.readline())

            measured(), measured()  # not the first steps
            return measured

        compare("here", steps_of(ROOT), "there", steps_of(other), rounds)


FIRST_STEP = """
import os, sys, time
sys.path.insert(0, {root!r})
import train_pl
def report(self, batch, batch_idx):
    print("first step", time.time(), flush=True)
    os._exit(0)
train_pl.VAE.training_step = report
train_pl.main(["--log_dir", {log_dir!r}, "--data_dir", {data_dir!r}])
"""


def bench_startup(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:

        def start() -> float:
            code = FIRST_STEP.format(
                root=str(ROOT), log_dir=f"{folder}/logs", data_dir=str(fmnist.DATA_DIR)
            )
            before = time.time()
            command = [sys.executable, "-c", code]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            return float(re.search(r"first step ([\d.]+)", said)[1]) - before

        first = median(start() for _ in range(rounds))
        print(f"Seconds from the command to the first training step: {first:.1f}")
        command = [sys.executable, str(ROOT / "train_pl.py"), "--epochs", "1"]
        subprocess.run([*command, "--log_dir", f"{folder}/logs"], capture_output=True, check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"Peak memory of a run of one epoch: {peak:.0f} MB")


def bench_cost(rounds: int, steps: int = 40) -> None:
    print("num_filters  z_dim  batch  parameters  s/epoch  peak MB")
    default = (DEFAULTS.num_filters, DEFAULTS.z_dim, DEFAULTS.batch_size)
    settings = [default]
    for position, values in enumerate([(16, 64), (2, 64), (64, 128, 512)]):
        for value in values:
            settings.append((*default[:position], value, *default[position + 1 :]))

    def peak_memory(num_filters: int, z_dim: int, batch_size: int) -> float:
        model, loss, optimizer = ours(num_filters, z_dim)
        loader = fmnist.mnist(batch_size=batch_size)[0]
        train(loss, optimizer, loader, 5)
        per_step = median(
            seconds(lambda: train(loss, optimizer, loader, steps)) / steps for _ in range(rounds)
        )
        row = f"{num_filters:>11}  {z_dim:>5}  {batch_size:>5}  {num_parameters(model):>10,}"
        print(f"{row}  {per_step * len(loader):>7.1f}", end="", flush=True)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    for setting in settings:
        print(f"  {apart(lambda: peak_memory(*setting)):>7.0f}", flush=True)  # noqa: B023


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    benches = {
        "data": bench_data,
        "lightning": bench_lightning,
        "startup": bench_startup,
        "cost": bench_cost,
        "origin": bench_origin,
        "step": lambda rounds: bench_step(rounds, args.against),
        "prior": bench_prior,
        "bound": bench_bound,
        "processes": bench_processes,
        "safety": bench_safety,
    }
    parser.add_argument("what", choices=benches)
    parser.add_argument("--rounds", type=int, default=3, help="alternations")
    parser.add_argument("--against", default=ROOT, help="step: the folder of another checkout")
    args = parser.parse_args()
    fmnist.prepare()
    benches[args.what](args.rounds)
