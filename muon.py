"""The optimiser: Muon, its orthogonalisation and the schedule of its learning rate."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam

from inputs.checks import at_least_float32, check_tensors

NEWTON_SCHULZ_STEPS = 4  # five give the same test bpd and take a quarter longer


def inverse_root(grams: Tensor) -> Tensor:
    """About G^(-1/2) of symmetric matrices G = X X^T: it makes X orthonormal.

    For X = U S V^T, G^(-1/2) X = U V^T is the nearest matrix with orthonormal rows; of a tall X the
    columns are made so, by X (X^T X)^(-1/2). Four steps of the odd quintic Newton-Schulz iteration
    of the Muon optimiser (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/, where
    they are five). Its coefficients bring small singular values of X up fast: those above a
    hundredth of its norm end between about 0.7 and 1.2, which is all that an update needs.

    Args:
        grams: float32 or better [N, n, n]; a single row X is brought to length 1 exactly.
    Returns:
        float [N, n, n]; finite for matrices of 0 too.
    """
    check_tensors("grams", ("N", "n", "n"), grams)
    norms = grams.diagonal(dim1=1, dim2=2).sum(dim=1).sqrt().view(-1, 1, 1) + 1e-7  # of X
    if grams.shape[1] == 1:
        return 1 / norms
    # X <- (a I + b G + c G^2) X with G = X X^T: as all factors are polynomials in the first G, they
    # are multiplied on their own, and X is met only twice, before and after. The price: a rounding
    # error in a direction that X lacks grows twelvefold per step. In float32 it stays small for
    # four steps; in bfloat16, or with ten steps, it would take over.
    gram, product = grams / norms.square(), None
    for step in range(NEWTON_SCHULZ_STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        factor.diagonal(dim1=1, dim2=2).add_(3.4445)
        product = factor if product is None else torch.bmm(factor, product)
        if step + 1 < NEWTON_SCHULZ_STEPS:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    return product / norms


def as_matrices(p: Parameter, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Both as first dimension times all others, these in the order of p's memory: p's is a view.

    The order of the columns does not matter to U V^T. Raises RuntimeError where there is no view.
    """
    if p.ndim < 2:
        return p.view(-1, 1), direction.view(-1, 1)
    if p.ndim > 2:
        order = [0, *sorted(range(1, p.ndim), key=p.stride, reverse=True)]
        p, direction = p.permute(order), direction.permute(order)
    return p.view(p.shape[0], -1), direction.flatten(1)


class Muon(torch.optim.Optimizer):
    """Gradient descent along the orthogonalised momentum of every weight and bias.

    Groups with `adam=True` are trained by Adam (Kingma & Ba 2015) in the same steps: the wide
    matrices of the prior, whose orthogonalisation would take longer than all the rest.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): a convolution's weight is
    seen as the matrix of its first dimension against all others, a bias as a single column, and
    every direction of it learns equally fast, not the few that dominate the gradient.
    torch.optim.Muon does this for linear layers only.

    Args:
        params: the parameters, or groups of them.
        lr: learning rate, of the size that Adam's has. The singular values of a step are about
            STEP * lr, times sqrt(rows / columns) for a matrix with more rows than columns.
        momentum: of the averaged gradient, in Nesterov's form.
        weight_decay: a step takes this share of a parameter, times STEP * lr.
    """

    STEP = 5.0

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
    ):
        muon = {"momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **muon, "adam": False, "steps": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (self._adam_step if group["adam"] else self._muon_step)(group)
        return loss

    def _kept(self, name: str, p: Parameter) -> Tensor:
        """The parameter's state of this name, zero at first."""
        if name not in self.state[p]:
            self.state[p][name] = torch.zeros_like(p)
        return self.state[p][name]

    def _muon_step(self, group: dict) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        gradients, averages = [p.grad for p in params], [self._kept("average", p) for p in params]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, averages, group["momentum"])  # Nesterov's
        step, same_size = self.STEP * group["lr"], defaultdict(list)
        for p, direction in zip(params, directions, strict=True):
            matrix, x = as_matrices(p, direction)
            rows, columns = x.shape
            wide = at_least_float32(x if rows <= columns else x.mT)
            same_size[min(rows, columns)].append((matrix, x, wide @ wide.mT))
        for members in same_size.values():  # Gram matrices of one size are taken together
            roots = inverse_root(torch.stack([gram for *_, gram in members]))
            for (matrix, x, _), root in zip(members, roots.unbind(), strict=True):
                rows, columns = x.shape
                root = root.to(x.dtype)
                length = step * max(1, rows / columns) ** 0.5
                left, right = (root, x) if rows <= columns else (x, root)
                matrix.addmm_(left, right, beta=1 - step * group["weight_decay"], alpha=-length)

    def _adam_step(self, group: dict) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        adam(
            params,
            [p.grad for p in params],
            [self._kept("average", p) for p in params],
            [self._kept("squares", p) for p in params],
            max_exp_avg_sqs=[],
            state_steps=[torch.tensor(float(group["steps"]), device=p.device) for p in params],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.99,
            lr=group["lr"],
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        group["steps"] += 1


def warmup_and_line(step: int, total: float, warmup: float) -> float:
    """The learning rate's share of its peak at a step of 0..total: a line up, a line down to 0.

    The line ends better than a cosine of the same length (Defazio et al. 2023, "Optimal linear
    decay learning rate schedules and further refinements"; measured in benchmarks/recipe.md).

    Args:
        step: steps taken.
        total: steps of the whole training; infinite if its end is not known, as with
            Trainer(max_epochs=-1), and then the share is 1 at all steps.
        warmup: share of the steps over which the learning rate rises.
    """
    if math.isinf(total):
        return 1.0
    rise = max(1, round(warmup * total))
    return min((step + 1) / (rise + 1), 1 - min(1, (step - rise) / max(1, total - rise)))
