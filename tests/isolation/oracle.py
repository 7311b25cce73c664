"""One parameter under every setting of MaskedAdam, in NumPy float64: the tables of CARD.md, written a second time."""

import numpy as np


class Oracle:
    def __init__(
        self,
        w: np.ndarray,
        moments: str,
        correction: str,
        variant: str,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        amsgrad: bool = False,
        maximize: bool = False,
    ) -> None:
        self.w, self.m, self.v, self.top, self.n, self.t = w.copy(), 0 * w, 0 * w, 0 * w, 0 * w, 0
        self.moments, self.correction, self.variant = moments, correction, variant
        self.decay, self.decoupled, self.amsgrad, self.maximize = (
            weight_decay,
            decoupled_weight_decay,
            amsgrad,
            maximize,
        )
        self.active = np.ones(w.shape, bool)

    def set_active(self, active: np.ndarray) -> None:
        for x in (self.m, self.v, self.top, self.n):
            if self.moments == "reset":
                x[self.active & ~active] = 0
            if self.moments == "mean" and self.active.any():
                mean = x[self.active].mean()
                x[active & ~self.active] = np.floor(mean + 0.5) if x is self.n else mean
        self.active = active

    def step(self, g: np.ndarray | None, lr: float, betas: tuple[float, float], eps: float) -> None:
        (b1, b2), a = betas, self.active
        if self.variant == "torch":
            self.t += g is not None and a.any()  # type: ignore[assignment]
        else:
            self.t += g is not None or not a.all()
        if self.moments == "decay":
            self.m[~a] *= b1
            self.v[~a] *= b2
        if self.moments == "decay" and self.variant == "tf15":
            self._move(~a, self.t, lr, betas, eps)
        if g is None:
            return
        g = -g if self.maximize else g
        if self.decoupled:
            self.w[a] *= 1 - lr * self.decay
        else:
            g = g + self.decay * self.w
        self.n[a] += 1
        self.m[a] = (b1 * self.m + (1 - b1) * g)[a]
        self.v[a] = (b2 * self.v + (1 - b2) * g**2)[a]
        self.top[a] = np.maximum(self.top, self.v)[a]
        self._move(a, self.n[a] if self.correction == "per_weight" else self.t, lr, betas, eps)

    def _move(self, who: np.ndarray, k: np.ndarray | int, lr: float, betas: tuple[float, float], eps: float) -> None:
        if not who.any() or np.all(k == 0):
            return
        c1, c2 = 1 - betas[0] ** k, 1 - betas[1] ** k
        m, root = self.m[who], np.sqrt((self.top if self.amsgrad else self.v)[who])
        if self.variant == "torch":
            self.w[who] -= lr * (m / c1) / (root / np.sqrt(c2) + eps)
        else:
            self.w[who] -= lr * np.sqrt(c2) / c1 * m / (root + eps)
