"""Two ways to one gradient: real-time recurrent learning forward in time, back-propagation through time backward.

The network is small and fully connected, h(t) = tanh(W h(t-1) + U x(t) + b), the loss a sum over the steps,
E = sum of E(t). RTRL: Williams and Zipser, "A learning algorithm for continually running fully recurrent neural
networks", Neural Computation 1 (2), 1989; equations 5.1 to 5.4 of the compte-rendu (see isotrain.lstm.reference).

With n units, m inputs (at most about n of them) and L steps:

    ======  ==============  ====================  ==================================================================
    method  time            memory                because
    ======  ==============  ====================  ==================================================================
    RTRL    O(n^4) a step   O(n^3), whatever L    n n (n + m + 1) sensitivities of an output to a weight, each a sum
                                                  of n terms a step; the past is forgotten
    BPTT    O(n^2) a step   O(L n)                a product of W with a vector a step; every output is kept
    ======  ==============  ====================  ==================================================================

(The O(n^2) of the weights and their gradient comes on top.) So RTRL can learn while the sequence runs, and pays for it
with n^2 times the work.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Slope = Callable[[int, Tensor], Tensor]  # step t counted from 0 and h(t) (n,) to dE(t)/dh(t) (n,)
Gradients = tuple[Tensor, Tensor, Tensor]  # dE/dW (n, n), dE/dU (n, m), dE/db (n,)


def real_time_recurrent_learning(
    weight: Tensor, weight_in: Tensor, bias: Tensor, x: Tensor, h0: Tensor, slope: Slope
) -> Gradients:
    """The gradient by sensitivities carried forward; O(n^4) time a step, O(n^3) memory for any number of steps.

    Args:
        weight: W (n, n); ``weight_in`` U (n, m); ``bias`` b (n,), one dtype and device for all.
        x: (L, m) inputs; ``h0`` (n,) the output before the first step, a constant.
        slope: derivative of E(t), asked for once a step, in order.
    """
    n = len(bias)
    units = torch.arange(n, device=x.device)
    h = h0
    sensitivity = x.new_zeros(n, n, n + x.shape[1] + 1)  # p[k, i, j] = dh_k / dw_ij with w = (W U b)
    gradient = torch.zeros_like(sensitivity[0])
    for t, x_t in enumerate(x):
        z = torch.cat((h, x_t, x.new_ones(1)))  # (5.1), and the constant that b multiplies
        h = torch.tanh(weight @ h + weight_in @ x_t + bias)  # (5.2)
        sensitivity = torch.tensordot(weight, sensitivity, 1)  # (5.4), the sum: n^3 (n + m + 1) products
        sensitivity[units, units] += z  # (5.4), the delta
        sensitivity *= (1 - h * h)[:, None, None]  # (5.4), f'
        gradient += torch.tensordot(slope(t, h), sensitivity, 1)  # (5.3)
    return _parts(gradient, n)


def back_propagation_through_time(
    weight: Tensor, weight_in: Tensor, bias: Tensor, x: Tensor, h0: Tensor, slope: Slope
) -> Gradients:
    """The same gradient by errors carried backward; O(n^2) time a step, O(L n) memory. Arguments as above."""
    h = [h0]
    for x_t in x:
        h.append(torch.tanh(weight @ h[-1] + weight_in @ x_t + bias))
    errors = x.new_empty(len(x), len(bias))  # row t: dE / d(W h(t-1) + U x(t) + b)
    arriving = torch.zeros_like(h0)
    for t in reversed(range(len(x))):
        errors[t] = (1 - h[t + 1].square()) * (slope(t, h[t + 1]) + arriving)
        arriving = errors[t] @ weight
    z = torch.cat((torch.stack(h)[:-1], x, x.new_ones(len(x), 1)), 1)
    return _parts(errors.T @ z, len(bias))


def _parts(gradient: Tensor, n: int) -> Gradients:
    """(n, n + m + 1) to the gradients of W, U and b."""
    return gradient[:, :n], gradient[:, n:-1], gradient[:, -1]
