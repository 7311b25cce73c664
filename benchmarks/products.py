"""What a matrix product reaches on this processor: the ceiling of an LSTM step.

    python benchmarks/products.py [--threads 2]

Times torch.mm of 1024 x 1024 matrices in fp32 and bf16, best of 30, and prints the time that the 17.4 GFLOP of a
training step would take at that rate (one layer of 256 units, 7 inputs, T = 168, B = 64).
"""

import argparse
import time

import torch

SIZE = 1024
STEP = 3 * 2 * 168 * 64 * 4 * 256 * (256 + 7)  # forward, gradient of the states (nearly), gradient of the weights


def rate(dtype: torch.dtype) -> float:
    """FLOP a second."""
    a, b = torch.randn(2, SIZE, SIZE).to(dtype)
    best = float("inf")
    for _ in range(30):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * SIZE**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="default: every core")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    for dtype in (torch.float32, torch.bfloat16):
        flops = rate(dtype)
        step = f"a step {1e3 * STEP / flops:.0f} ms"
        print(f"{dtype}, {torch.get_num_threads()} threads: {flops / 1e9:.0f} GFLOP/s, {step}")


if __name__ == "__main__":
    main()
